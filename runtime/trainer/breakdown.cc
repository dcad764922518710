#include "runtime/trainer/breakdown.h"

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "base/check.h"

namespace sluice {
namespace {

using Interval = std::pair<int64_t, int64_t>;

// Sorted and disjoint.
std::vector<Interval> Union(std::vector<Interval> intervals) {
  std::sort(intervals.begin(), intervals.end());
  std::vector<Interval> merged;
  for (const Interval& interval : intervals) {
    if (!merged.empty() && interval.first <= merged.back().second) {
      merged.back().second = std::max(merged.back().second, interval.second);
    } else {
      merged.push_back(interval);
    }
  }
  return merged;
}

int64_t Length(const std::vector<Interval>& intervals) {
  int64_t total = 0;
  for (const Interval& interval : intervals) total += interval.second - interval.first;
  return total;
}

// Time in `intervals` that `others` don't cover.
int64_t LengthOutside(const std::vector<Interval>& intervals, const std::vector<Interval>& others) {
  std::vector<Interval> both = intervals;
  both.insert(both.end(), others.begin(), others.end());
  return Length(Union(std::move(both))) - Length(others);
}

struct RankIntervals {
  std::vector<Interval> compute, optimizer, transfer;
};

int64_t Median(std::vector<int64_t> values) {
  if (values.empty()) return 0;
  auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Where the input of a compute action was made, if on another rank: F of the stage before, or I or B of the stage after.
struct Producer {
  int32_t stage = 0;
  bool forward = true;
};

std::optional<Producer> ProducerOf(const Action& action, const Placement& placement) {
  const bool forward = action.kind == ActionKind::kForward;
  if (action.kind == ActionKind::kWeightGradient) return std::nullopt;
  const int32_t stage = action.stage.value() + (forward ? -1 : 1);
  if (stage < 0 || stage >= placement.stages()) return std::nullopt;
  if (placement.RankOf(StageId(stage), action.copy) == placement.RankOf(action.stage, action.copy)) return std::nullopt;
  return Producer{stage, forward};
}

// The compute actions of a step: of each rank in order of time, and when each message was made.
struct ComputeOrder {
  std::vector<std::vector<const Span*>> ranks;
  std::map<std::tuple<int32_t, bool, int32_t>, int64_t> made;  // (stage, forward, micro-batch) -> end
};

ComputeOrder OrderOf(const Timeline& step) {
  ComputeOrder order{.ranks = std::vector<std::vector<const Span*>>(step.ranks)};
  for (const Span& span : step.spans) {
    if (!IsCompute(span.action.kind)) continue;
    order.ranks[span.rank.index()].push_back(&span);
    if (span.action.kind == ActionKind::kWeightGradient) continue;
    const bool forward = span.action.kind == ActionKind::kForward;
    order.made[{span.action.stage.value(), forward, span.action.micro_batch.value()}] = span.end_ns;
  }
  for (auto& rank : order.ranks) {
    std::sort(rank.begin(), rank.end(), [](const Span* a, const Span* b) { return a->begin_ns < b->begin_ns; });
  }
  return order;
}

// When the input of a compute action was made on another rank.
std::optional<int64_t> InputMade(const Action& action, const ComputeOrder& order, const Placement& placement) {
  const auto producer = ProducerOf(action, placement);
  if (!producer) return std::nullopt;
  const auto end = order.made.find({producer->stage, producer->forward, action.micro_batch.value()});
  return end == order.made.end() ? std::nullopt : std::optional(end->second);
}

// From the end of the work that made a message to the beginning of the work that waited for it: the transfer, and the waking up
// at both ends. Only where the receiver stood idle.
void AddHandOvers(const Timeline& step, const Placement& placement, std::vector<int64_t>* latencies) {
  const ComputeOrder order = OrderOf(step);
  for (const auto& rank : order.ranks) {
    for (size_t i = 1; i < rank.size(); ++i) {
      const std::optional<int64_t> made = InputMade(rank[i]->action, order, placement);
      if (made && *made > rank[i - 1]->end_ns) latencies->push_back(rank[i]->begin_ns - *made);
    }
  }
}

}  // namespace

std::vector<Timeline> PipelinesOf(const Timeline& timeline, const RankGrid& grid) {
  Timeline empty = timeline;
  empty.ranks = grid.pp();
  empty.spans.clear();
  empty.samples.clear();
  std::vector<Timeline> pipelines(static_cast<size_t>(grid.dp()) * grid.tp(), empty);
  const auto place = [&](PipelineRank row) { return grid.PlaceOf(WorldRank(row.value())); };
  const auto pipeline = [&](const GridPlace& at) -> Timeline& { return pipelines[at.replica * grid.tp() + at.shard]; };
  for (Span span : timeline.spans) {
    const GridPlace at = place(span.rank);
    span.rank = at.pipeline;
    pipeline(at).spans.push_back(span);
  }
  for (MemorySample sample : timeline.samples) {
    const GridPlace at = place(sample.rank);
    sample.rank = at.pipeline;
    pipeline(at).samples.push_back(sample);
  }
  return pipelines;
}

std::vector<Timeline> PipelinesOf(absl::Span<const Timeline> timelines, const RankGrid& grid) {
  std::vector<Timeline> all;
  for (const Timeline& timeline : timelines) {
    for (Timeline& pipeline : PipelinesOf(timeline, grid)) all.push_back(std::move(pipeline));
  }
  return all;
}

std::vector<RankBreakdown> BreakDown(const Timeline& timeline) {
  std::vector<RankIntervals> ranks(timeline.ranks);
  int64_t end = 0;
  for (const Span& span : timeline.spans) {
    RankIntervals& rank = ranks[span.rank.index()];
    auto& kind = IsCompute(span.action.kind) ? rank.compute : IsTransfer(span.action.kind) ? rank.transfer : rank.optimizer;
    kind.emplace_back(span.begin_ns, span.end_ns);
    end = std::max(end, span.end_ns);
  }
  std::vector<RankBreakdown> result;
  for (RankIntervals& rank : ranks) {
    const auto compute = Union(std::move(rank.compute));
    auto busy = compute;
    busy.insert(busy.end(), rank.optimizer.begin(), rank.optimizer.end());
    const int64_t optimizer = LengthOutside(Union(std::move(rank.optimizer)), compute);
    const int64_t transfer = LengthOutside(Union(std::move(rank.transfer)), Union(std::move(busy)));
    const int64_t compute_ns = Length(compute);
    result.push_back({.step_ns = end,
                      .compute_ns = compute_ns,
                      .optimizer_ns = optimizer,
                      .transfer_ns = transfer,
                      .waiting_ns = end - compute_ns - optimizer - transfer});
  }
  return result;
}

std::vector<Straggler> FindStragglers(const std::vector<RankBreakdown>& measured,
                                      const std::vector<RankBreakdown>& planned, const RankGrid& grid) {
  constexpr double kSlow = 2;
  std::vector<double> pace;  // measured time by planned time
  for (size_t rank = 0; rank < measured.size(); ++rank) {
    const int64_t plan = planned[grid.PlaceOf(WorldRank(rank)).pipeline.index()].compute_ns;
    pace.push_back(static_cast<double>(measured[rank].compute_ns) / static_cast<double>(std::max<int64_t>(1, plan)));
  }
  std::vector<Straggler> stragglers;
  if (pace.size() < 2) return stragglers;
  std::vector<double> sorted = pace;
  std::sort(sorted.begin(), sorted.end());
  const size_t middle = (sorted.size() - 1) / 2;
  for (size_t rank = 0; rank < pace.size(); ++rank) {
    const bool among_faster = pace[rank] <= sorted[middle];  // without it the middle is the next one
    const double others = sorted[middle + (among_faster ? 1 : 0)];
    if (pace[rank] >= kSlow * others && others > 0) stragglers.push_back({WorldRank(rank), pace[rank] / others});
  }
  return stragglers;
}

std::vector<RankIdle> ExplainIdle(const Timeline& timeline, const Placement& placement) {
  const ComputeOrder order = OrderOf(timeline);
  const std::vector<RankBreakdown> breakdown = BreakDown(timeline);
  std::vector<RankIdle> result(timeline.ranks);
  for (int rank = 0; rank < timeline.ranks; ++rank) {
    RankIdle& idle = result[rank];
    int64_t free = 0;  // since when the rank has been able to work
    for (const Span* span : order.ranks[rank]) {
      const int64_t ready = std::max(free, InputMade(span->action, order, placement).value_or(0));
      idle.explained_ns += ready - free;
      idle.overhead_ns += std::max<int64_t>(0, span->begin_ns - ready);
      free = std::max(free, span->end_ns);
    }
    // The rest is waiting for the end of the others.
    const RankBreakdown& parts = breakdown[rank];
    const int64_t end = parts.step_ns - parts.compute_ns - parts.optimizer_ns - idle.explained_ns - idle.overhead_ns;
    idle.explained_ns += std::max<int64_t>(0, end);
  }
  return result;
}

Costs MeasuredCosts(absl::Span<const Timeline> steps, const Placement& placement, const Costs& sizes) {
  std::map<std::pair<int32_t, ActionKind>, std::vector<int64_t>> times;  // of (stage, kind)
  std::map<int32_t, std::vector<int64_t>> optimizer;                     // of a rank
  std::vector<int64_t> hand_overs;
  double exchanged_bytes = 0, exchanged_ns = 0;
  for (const Timeline& step : steps) {
    AddHandOvers(step, placement, &hand_overs);
    for (const Span& span : step.spans) {
      const int64_t duration = span.end_ns - span.begin_ns;
      if (IsCompute(span.action.kind)) times[{span.action.stage.value(), span.action.kind}].push_back(duration);
      // The exchanges of a REDUCE_GRAD stand apart, those of a COLLECTIVE follow each other.
      if (span.action.kind == ActionKind::kCollective && span.bytes > 0) {
        exchanged_bytes += static_cast<double>(span.bytes);
        exchanged_ns += static_cast<double>(duration);
      }
      if (span.action.kind == ActionKind::kOptimizerStep) optimizer[span.rank.value()].push_back(duration);
    }
  }
  Costs costs = sizes;
  for (size_t stage = 0; stage < costs.stages.size(); ++stage) {
    auto median = [&](ActionKind kind) { return Median(times[{static_cast<int32_t>(stage), kind}]); };
    costs.stages[stage].forward_ns = median(ActionKind::kForward);
    costs.stages[stage].backward_ns = median(ActionKind::kBackward);
    costs.stages[stage].input_gradient_ns = median(ActionKind::kInputGradient);
    costs.stages[stage].weight_gradient_ns = median(ActionKind::kWeightGradient);
  }
  std::map<int32_t, int64_t> stages_of_rank;
  for (int copy = 0; copy < placement.copies(); ++copy) {
    for (int stage = 0; stage < placement.stages(); ++stage) {
      ++stages_of_rank[placement.RankOf(StageId(stage), copy).value()];
    }
  }
  for (int stage = 0; stage < placement.stages(); ++stage) {
    const int32_t rank = placement.RankOf(StageId(stage)).value();
    costs.stages[stage].optimizer_ns = Median(optimizer[rank]) / stages_of_rank[rank];
  }
  if (exchanged_ns > 0) costs.collective_bytes_per_second = 1e9 * exchanged_bytes / exchanged_ns;
  costs.transfer_latency_ns = Median(std::move(hand_overs));
  costs.transfer_bytes_per_second = 0;  // the measured latency is that of whole messages
  return costs;
}

}  // namespace sluice
