#include "scheduler/idle.h"

#include <algorithm>
#include <tuple>

namespace sluice {
namespace {

// What F, B and I wait for; W's input is made on its own rank.
bool TakesMessage(ActionKind kind) { return IsCompute(kind) && kind != ActionKind::kWeightGradient; }

// Into which stage a message goes, and of what kind it is: the same for F and for both ends of its input's transfer.
std::tuple<bool, int, MicroBatch> MessageKey(const Action& action) {
  const int s = action.stage.value();
  switch (action.kind) {
    case ActionKind::kForward:
    case ActionKind::kRecvForward:
      return {true, s, action.micro_batch};
    case ActionKind::kSendForward:
      return {true, s + 1, action.micro_batch};
    case ActionKind::kSendBackward:
      return {false, s - 1, action.micro_batch};
    default:
      return {false, s, action.micro_batch};
  }
}

class IdleReader {
 public:
  explicit IdleReader(const Timeline& timeline) : work_(timeline.ranks) {
    for (const Span& span : timeline.spans) {
      if (IsStageTransfer(span.action.kind)) transfers_.push_back(&span);
      if (IsCompute(span.action.kind)) work_[span.rank.index()].push_back(&span);
    }
    std::sort(transfers_.begin(), transfers_.end(),
              [](const Span* a, const Span* b) { return MessageKey(a->action) < MessageKey(b->action); });
    for (auto& spans : work_) {
      std::sort(spans.begin(), spans.end(), [](const Span* a, const Span* b) { return a->begin_ns < b->begin_ns; });
      if (spans.empty()) continue;
      begin_ns_ = begin_ns_ < 0 ? spans.front()->begin_ns : std::min(begin_ns_, spans.front()->begin_ns);
      for (const Span* span : spans) end_ns_ = std::max(end_ns_, span->end_ns);
    }
  }

  std::vector<IdleCauses> Read() const {
    std::vector<IdleCauses> ranks;
    for (const auto& spans : work_) ranks.push_back(ReadRank(spans));
    return ranks;
  }

 private:
  IdleCauses ReadRank(const std::vector<const Span*>& spans) const {
    IdleCauses causes;
    if (spans.empty()) {
      causes.warm_up_ns = end_ns_ - std::max<int64_t>(0, begin_ns_);
      return causes;
    }
    int64_t until_ns = spans.front()->begin_ns;
    causes.warm_up_ns = until_ns - begin_ns_;
    for (const Span* span : spans) {
      if (span->begin_ns > until_ns) ReadGap(until_ns, *span, causes);
      causes.busy_ns += std::max<int64_t>(0, span->end_ns - std::max(until_ns, span->begin_ns));
      until_ns = std::max(until_ns, span->end_ns);
    }
    causes.cool_down_ns = end_ns_ - until_ns;
    return causes;
  }

  // The gap from `begin_ns` to the next action, cut where its input's transfer begins and ends.
  void ReadGap(int64_t begin_ns, const Span& next, IdleCauses& causes) const {
    const int64_t end_ns = next.begin_ns;
    int64_t& waiting = !TakesMessage(next.action.kind)            ? causes.other_ns
                       : next.action.kind == ActionKind::kForward ? causes.activation_ns
                                                                  : causes.gradient_ns;
    int64_t sent_ns = begin_ns, here_ns = begin_ns;
    if (!FindTransfer(next, sent_ns, here_ns) && transfers_.empty()) sent_ns = here_ns = end_ns;
    sent_ns = std::clamp(sent_ns, begin_ns, end_ns);
    here_ns = std::clamp(here_ns, sent_ns, end_ns);
    waiting += sent_ns - begin_ns;
    causes.transfer_ns += here_ns - sent_ns;
    causes.other_ns += end_ns - here_ns;
  }

  // Under way from when both ends have begun to when it is received. False if the input came from the rank itself.
  bool FindTransfer(const Span& span, int64_t& begin_ns, int64_t& end_ns) const {
    if (!TakesMessage(span.action.kind)) return false;
    const auto key = MessageKey(span.action);
    auto found = std::lower_bound(transfers_.begin(), transfers_.end(), key,
                                  [](const Span* a, const auto& wanted) { return MessageKey(a->action) < wanted; });
    bool received = false;
    for (; found != transfers_.end() && MessageKey((*found)->action) == key; ++found) {
      begin_ns = std::max(begin_ns, (*found)->begin_ns);
      if (!IsRecv((*found)->action.kind)) continue;
      end_ns = (*found)->end_ns;
      received = true;
    }
    return received;
  }

  std::vector<std::vector<const Span*>> work_;  // per rank, by begin
  std::vector<const Span*> transfers_;          // by MessageKey
  int64_t begin_ns_ = -1, end_ns_ = 0;          // of the makespan
};

}  // namespace

std::vector<IdleCauses> ExplainIdle(const Timeline& timeline) { return IdleReader(timeline).Read(); }

}  // namespace sluice
