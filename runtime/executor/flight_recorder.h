// The last actions of one rank, in a ring of fixed size: what was issued when, and what came of it. Costs a few stores
// an action, is read when something went wrong. Threads: written by the rank's issuing thread, dumped by any.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/event.h"
#include "scheduler/action.h"

namespace sluice {

class FlightRecorder {
 public:
  explicit FlightRecorder(size_t capacity) : ring_(capacity) {}

  void BeginStep() { ++step_; }
  // An action is about to be issued, or to wait for its turn.
  void Reach(const Action& action, Nanoseconds now);
  // The action reached last has been issued; the event is kept until Settle().
  void Issued(const EventRef& event, Nanoseconds now);
  // Takes the times of all events that are done, and drops them.
  void Settle();

  // Oldest first: "#12 step 3 1RECV_F2 from rank 0: done, issued 1.250 ms, ran 1.300 to 1.320 ms".
  std::string Dump() const;

 private:
  struct Entry {
    uint64_t sequence = 0;
    int64_t step = 0;
    Action action;
    bool issued = false;
    Nanoseconds reached_at = 0;
    Nanoseconds issued_at = 0;
    EventRef event;  // until settled
    Nanoseconds began_at = 0;
    Nanoseconds ended_at = 0;
    absl::Status status;
  };
  static void SettleEntry(Entry& entry);

  mutable std::mutex mutex_;
  std::vector<Entry> ring_;
  uint64_t next_ = 0;  // sequence number of the next entry
  uint64_t settled_ = 0;
  int64_t step_ = 0;
};

}  // namespace sluice
