#include "runtime/executor/flight_recorder.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/executor/pipeline_abort.h"

namespace sluice {

void FlightRecorder::Reach(const Action& action, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  Entry& entry = ring_[next_ % ring_.size()];
  entry = {.sequence = next_, .step = step_, .action = action, .reached_at = now};
  ++next_;
}

void FlightRecorder::Issued(const EventRef& event, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  Entry& entry = ring_[(next_ - 1) % ring_.size()];
  entry.issued = true;
  entry.issued_at = now;
  entry.event = event;
}

void FlightRecorder::SettleEntry(Entry& entry) {
  if (!entry.event || !entry.event->Done()) return;
  entry.status = entry.event->status();
  entry.began_at = entry.event->began();
  entry.ended_at = entry.event->ended();
  entry.event = nullptr;
}

void FlightRecorder::Settle() {
  std::lock_guard lock(mutex_);
  const uint64_t first = next_ - std::min<uint64_t>(next_, ring_.size());
  for (uint64_t i = std::max(first, settled_); i < next_; ++i) SettleEntry(ring_[i % ring_.size()]);
  settled_ = next_;
}

std::string FlightRecorder::Dump() const {
  constexpr double kMs = 1e6;
  std::lock_guard lock(mutex_);
  std::string text;
  std::set<QueueId> busy;  // queues whose head has been seen
  for (uint64_t i = next_ - std::min<uint64_t>(next_, ring_.size()); i < next_; ++i) {
    Entry entry = ring_[i % ring_.size()];
    SettleEntry(entry);
    absl::StrAppend(&text, absl::StrFormat("#%d step %d %s: ", entry.sequence, entry.step, WithPeer(entry.action)));
    if (!entry.issued) {
      absl::StrAppend(&text, absl::StrFormat("not issued, reached %.3f ms\n", entry.reached_at / kMs));
    } else if (entry.event) {
      const char* state = busy.insert(entry.action.queue).second ? "started or first in its queue" : "queued";
      absl::StrAppend(&text, absl::StrFormat("%s, issued %.3f ms\n", state, entry.issued_at / kMs));
    } else {
      absl::StrAppend(&text, absl::StrFormat("%s, issued %.3f ms, ran %.3f to %.3f ms\n",
                                             entry.status.ok() ? "done" : entry.status.ToString(),
                                             entry.issued_at / kMs, entry.began_at / kMs, entry.ended_at / kMs));
    }
  }
  return text;
}

}  // namespace sluice
