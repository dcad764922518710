#include "scheduler/search/layout.h"

#include <algorithm>
#include <cmath>

namespace sluice::search {
namespace {

int64_t HopNs(const Costs& costs, int64_t bytes) {
  if (costs.transfer_bytes_per_second <= 0) return costs.transfer_latency_ns;
  return costs.transfer_latency_ns +
         static_cast<int64_t>(1e9 * static_cast<double>(bytes) / costs.transfer_bytes_per_second);
}

LayoutStage MakeStage(const ModelCut& cut, const Placement& placement, int s) {
  const auto rank_of = [&](int stage) { return placement.RankOf(StageId(stage)); };
  const StageCosts& costs = cut.costs.stages[s];
  const MicroBatchMemory memory = cut.memory.empty() ? MicroBatchMemory{} : cut.memory[s];
  LayoutStage stage{.rank = rank_of(s).value(),
                    .forward_ns = costs.forward_ns,
                    .input_ns = costs.input_gradient_ns,
                    .weight_ns = costs.weight_gradient_ns,
                    .backward_ns = costs.backward_ns,
                    .forward_bytes = memory.forward_bytes,
                    .weight_bytes = memory.weight_bytes};
  if (s > 0 && rank_of(s - 1) != rank_of(s)) {
    stage.forward_hop_ns = HopNs(cut.costs, cut.costs.stages[s - 1].activation_bytes);
  }
  if (s + 1 < placement.stages() && rank_of(s + 1) != rank_of(s)) {
    stage.backward_hop_ns = HopNs(cut.costs, cut.costs.stages[s + 1].gradient_bytes);
  }
  return stage;
}

ActionKind KindOf(const Layout& layout, const Action& action, const StageCounts& counts) {
  if (action.kind != ActionKind::kBackward) return action.kind;
  const bool fused = layout.stages[action.stage.index()].fused_is_cheaper() && counts.weights == counts.gradients;
  return fused ? ActionKind::kBackward : ActionKind::kInputGradient;
}

}  // namespace

std::vector<Placement> PlacementsOf(int ranks, int chunks) {
  std::vector<Placement> placements = {Placement::Loop(ranks, chunks)};
  if (ranks == 1) return placements;
  if (chunks % 2 == 0) placements.push_back(Placement::Wave(ranks, chunks / 2));  // one wave is the V
  return placements;
}

int64_t CapBytes(const SearchProblem& problem, int64_t micro_batch_bytes) {
  int64_t cap = problem.rank_bytes_cap > 0 ? problem.rank_bytes_cap : kNoCap;
  const double in_flight = problem.in_flight_cap * static_cast<double>(micro_batch_bytes);
  if (in_flight > 0 && in_flight < 9e18) cap = std::min(cap, static_cast<int64_t>(in_flight + 1e-6));
  return cap;
}

Layout MakeLayout(const SearchProblem& problem, const ModelCut& cut, const Placement& placement) {
  Layout layout{.placement = placement,
                .cut = &cut,
                .micro_batches = problem.micro_batches,
                .objective = problem.objective,
                .stages_of_rank = std::vector<std::vector<int>>(placement.ranks()),
                .begin_ns = std::vector<int64_t>(placement.ranks())};
  int64_t begin = 0;
  for (int s = 0; s < placement.stages(); ++s) {
    const LayoutStage& stage = layout.stages.emplace_back(MakeStage(cut, placement, s));
    begin += stage.forward_hop_ns;
    if (layout.stages_of_rank[stage.rank].empty()) layout.begin_ns[stage.rank] = begin;
    layout.stages_of_rank[stage.rank].push_back(s);
    begin += stage.forward_ns;
  }
  for (const auto& stages : layout.stages_of_rank) {
    int64_t bytes = 0;
    for (int s : stages) bytes += layout.stages[s].forward_bytes;
    layout.cap_bytes.push_back(CapBytes(problem, bytes));
  }
  return layout;
}

int64_t BytesDelta(const LayoutStage& stage, ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward:
      return stage.forward_bytes;
    case ActionKind::kInputGradient:
      return stage.weight_bytes - stage.forward_bytes;
    case ActionKind::kBackward:
      return -stage.forward_bytes;
    default:
      return -stage.weight_bytes;
  }
}

void Count(ActionKind kind, StageCounts& counts) {
  counts.forwards += kind == ActionKind::kForward;
  counts.gradients += kind == ActionKind::kInputGradient || kind == ActionKind::kBackward;
  counts.weights += kind == ActionKind::kWeightGradient || kind == ActionKind::kBackward;
}

int64_t PeakBytes(const Layout& layout, const RankOrder& order) {
  std::vector<StageCounts> counts(layout.stages.size());
  int64_t bytes = 0, peak = 0;
  for (const Step step : order) {
    const LayoutStage& stage = layout.stages[step.stage];
    if (!Allowed(counts[step.stage], step.kind)) return kNoCap;
    Count(step.kind, counts[step.stage]);
    if (step.kind == ActionKind::kBackward)
      peak = std::max(peak, bytes + BytesDelta(stage, ActionKind::kInputGradient));
    bytes += BytesDelta(stage, step.kind);
    peak = std::max(peak, bytes);
  }
  return peak;
}

Order ToOrder(const Layout& layout, const Schedule& schedule) {
  Order order(schedule.ranks.size());
  std::vector<StageCounts> counts(layout.stages.size());
  for (size_t r = 0; r < schedule.ranks.size(); ++r) {
    const auto add = [&](uint16_t stage, ActionKind kind) {
      Count(kind, counts[stage]);
      order[r].push_back({stage, kind});
    };
    for (const Action& action : schedule.ranks[r]) {
      if (!IsCompute(action.kind)) continue;
      const auto stage = static_cast<uint16_t>(action.stage.index());
      const ActionKind kind = KindOf(layout, action, counts[stage]);
      add(stage, kind);
      if (kind != action.kind) add(stage, ActionKind::kWeightGradient);
    }
  }
  return order;
}

Schedule ToSchedule(const Layout& layout, const Order& order) {
  Schedule schedule{.name = "found", .micro_batches = layout.micro_batches, .placement = layout.placement};
  schedule.ranks.resize(order.size());
  std::vector<StageCounts> counts(layout.stages.size());
  for (size_t r = 0; r < order.size(); ++r) {
    for (const Step step : order[r]) {
      StageCounts& done = counts[step.stage];
      const int micro_batch = step.kind == ActionKind::kForward          ? done.forwards
                              : step.kind == ActionKind::kWeightGradient ? done.weights
                                                                         : done.gradients;
      schedule.ranks[r].push_back(
          {.kind = step.kind, .stage = StageId(step.stage), .micro_batch = MicroBatch(micro_batch)});
      Count(step.kind, done);
    }
  }
  return schedule;
}

}  // namespace sluice::search
