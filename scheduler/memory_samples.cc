#include "scheduler/memory_samples.h"

#include <algorithm>
#include <set>
#include <utility>

namespace sluice {
namespace {

// When which slots of a rank are taken and given back, in bytes.
class MemoryCurve {
 public:
  MemoryCurve(const Program& program, const std::vector<StageBytes>& bytes, const std::vector<Span>& spans)
      : program_(program), bytes_(bytes) {
    changes_.resize(program.placement.ranks());
    validated_ns_.resize(program.placement.ranks());
    for (const Span& span : spans) {
      const Action& a = span.action;
      if (a.kind == ActionKind::kPostValidation) validated_ns_[span.rank.index()] = span.end_ns;
      if (!(a.flags & kDiscarded)) continue;
      if (a.kind == ActionKind::kForward) discarded_forwards_.insert({a.stage, a.micro_batch});
      if (a.kind == ActionKind::kSendForward) discarded_sends_.insert({a.stage, a.micro_batch});
    }
  }

  void Add(const Span& span) {
    if (span.action.flags & kDiscarded) return AddDiscarded(span);
    const PipelineRank rank = span.rank;
    const Action& a = span.action;
    const int64_t begin_ns = span.begin_ns, end_ns = span.end_ns;
    const bool frees_input = program_.pass == PassKind::kForwardOnly;
    switch (a.kind) {
      case ActionKind::kForward:
        Add(rank, begin_ns, Of(a.stage, Pool::kStash) + Written(a, NextOf(a), Pool::kInput, Pool::kOutput));
        if (frees_input) Add(rank, end_ns, -Of(a.stage, Pool::kStash) - InputBytes(a));
        break;
      case ActionKind::kBackward:
      case ActionKind::kInputGradient:
        Add(rank, begin_ns,
            Of(a.stage, Pool::kGradientStash) +
                Written(a, a.stage.value() - 1, Pool::kOutputGradient, Pool::kInputGradient));
        if (a.kind == ActionKind::kInputGradient) break;
        [[fallthrough]];
      case ActionKind::kWeightGradient:
        Add(rank, end_ns, -Of(a.stage, Pool::kStash) - Of(a.stage, Pool::kGradientStash) - InputBytes(a));
        if (a.stage.value() < program_.placement.stages() - 1) Add(rank, end_ns, -Of(a.stage, Pool::kOutputGradient));
        break;
      case ActionKind::kRecvForward:
        Add(rank, begin_ns, Of(a.stage, Pool::kInput));
        break;
      case ActionKind::kRecvBackward:
        Add(rank, begin_ns, Of(a.stage, Pool::kOutputGradient));
        break;
      case ActionKind::kSendForward:
        Add(rank, end_ns, -Of(a.stage, Pool::kOutput));
        break;
      case ActionKind::kSendBackward:
        Add(rank, end_ns, -Of(a.stage, Pool::kInputGradient));
        break;
      default:
        break;
    }
  }

  // Sorted by time; what is given back at a moment counts before what is taken at it.
  std::vector<MemorySample> Samples() {
    std::vector<MemorySample> samples;
    for (size_t r = 0; r < changes_.size(); ++r) {
      std::sort(changes_[r].begin(), changes_[r].end());
      int64_t held = Fixed(PipelineRank(static_cast<int>(r)));
      samples.push_back({PipelineRank(static_cast<int>(r)), 0, held});
      for (const auto& [time_ns, bytes] : changes_[r]) {
        held += bytes;
        if (samples.back().rank.index() != r || samples.back().time_ns != time_ns || bytes > 0) {
          samples.push_back({PipelineRank(static_cast<int>(r)), time_ns, held});
        } else {
          samples.back().bytes = held;
        }
      }
    }
    return samples;
  }

 private:
  int64_t Of(StageId stage, Pool pool) const { return bytes_[stage.index()].slot[static_cast<size_t>(pool)]; }
  int64_t InputBytes(const Action& a) const {
    return program_.path().Previous(a.stage, a.micro_batch) ? Of(a.stage, Pool::kInput) : 0;
  }
  // The stage that a forward pass writes for; -1: none.
  int NextOf(const Action& a) const {
    const auto next = program_.path().Next(a.stage, a.micro_batch);
    return next ? next->stage.value() : -1;
  }
  // The slot that a compute action writes: its neighbour's on the same rank, its own for a message, or none.
  int64_t Written(const Action& a, int neighbour, Pool neighbours, Pool own) const {
    const Placement& placement = program_.placement;
    if (neighbour < 0 || neighbour >= placement.stages()) return 0;
    const bool local = placement.RankOf(StageId(neighbour), a.copy) == placement.RankOf(a.stage, a.copy);
    return local ? Of(StageId(neighbour), neighbours) : Of(a.stage, own);
  }
  // Held until POST_VALIDATION, or until a message begun before it has moved.
  void AddDiscarded(const Span& span) {
    const Action& a = span.action;
    const int64_t validated_ns = std::max(span.end_ns, validated_ns_[span.rank.index()]);
    const std::pair cell(a.stage, a.micro_batch);
    if (a.kind == ActionKind::kForward) {
      const int64_t written = Written(a, a.stage.value() + 1, Pool::kInput, Pool::kOutput);
      Add(span.rank, span.begin_ns, Of(a.stage, Pool::kStash) + written);
      Add(span.rank, validated_ns, -Of(a.stage, Pool::kStash) - (discarded_sends_.contains(cell) ? 0 : written));
    } else if (a.kind == ActionKind::kSendForward && discarded_forwards_.contains(cell)) {
      Add(span.rank, span.end_ns, -Of(a.stage, Pool::kOutput));
    } else if (IsRecv(a.kind)) {
      const Pool pool = a.kind == ActionKind::kRecvForward ? Pool::kInput : Pool::kOutputGradient;
      Add(span.rank, span.begin_ns, Of(a.stage, pool));
      Add(span.rank, validated_ns, -Of(a.stage, pool));
    }
  }
  int64_t Fixed(PipelineRank rank) const {
    int64_t total = 0;
    for (int copy = 0; copy < program_.placement.copies(); ++copy) {
      for (int s = 0; s < program_.placement.stages(); ++s) {
        if (program_.placement.RankOf(StageId(s), copy) == rank) total += bytes_[s].fixed;
      }
    }
    return total;
  }
  void Add(PipelineRank rank, int64_t time_ns, int64_t bytes) {
    if (bytes != 0) changes_[rank.index()].emplace_back(time_ns, bytes);
  }

  const Program& program_;
  const std::vector<StageBytes>& bytes_;
  std::vector<std::vector<std::pair<int64_t, int64_t>>> changes_;
  std::vector<int64_t> validated_ns_;  // end of each rank's POST_VALIDATION
  std::set<std::pair<StageId, MicroBatch>> discarded_forwards_, discarded_sends_;
};

}  // namespace

std::vector<MemorySample> MemorySamples(const Program& program, const std::vector<StageBytes>& bytes,
                                        const std::vector<Span>& spans) {
  MemoryCurve curve(program, bytes, spans);
  for (const Span& span : spans) curve.Add(span);
  return curve.Samples();
}

}  // namespace sluice
