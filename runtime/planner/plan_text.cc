// A plan as text: three tables, the prediction, and the pipeline as a chart.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "runtime/planner/grid_text.h"
#include "runtime/planner/plan.h"
#include "runtime/planner/text_table.h"
#include "stages/parameters.h"

namespace sluice {
namespace {

std::string Milliseconds(int64_t ns) {
  const double ms = static_cast<double>(ns) / 1e6;
  return absl::StrFormat(ms >= 100 ? "%.0f ms" : ms >= 10 ? "%.1f ms" : ms >= 1 ? "%.2f ms" : "%.3f ms", ms);
}

std::string Percent(double share) { return absl::StrFormat("%.1f %%", 100 * share); }

const char* RecomputeName(Recomputation recompute) {
  switch (recompute) {
    case Recomputation::kNone:
      return "none";
    case Recomputation::kSelective:
      return "selective";
    case Recomputation::kFull:
      return "full";
  }
  return "?";
}

// "2 ranks", or "pp 2 x dp 2 x tp 2 = 8 ranks".
std::string Ranks(const RankGrid& grid) {
  const std::string ranks = absl::StrCat(grid.ranks(), grid.ranks() == 1 ? " rank" : " ranks");
  if (grid.dp() * grid.tp() == 1) return ranks;
  return absl::StrCat("pp ", grid.pp(), " x dp ", grid.dp(), " x tp ", grid.tp(), " = ", ranks);
}

std::string Summary(const Plan& plan) {
  const JobConfig& job = plan.job;
  return absl::StrCat(job.graph.name, ": ", job.graph.nodes.size(), " nodes, ", Grouped(ParameterCount(job.graph)),
                      " parameters, ", job.training.precision == Precision::kF32 ? "f32" : "bf16", "\n", Ranks(job.layout.grid()),
                      " of ", std::max(1, job.layout.threads_per_rank),
                      job.layout.threads_per_rank > 1 ? " threads" : " thread", ", schedule ", job.schedule.title(),
                      ", ", job.training.micro_batches, " micro-batches of ", job.training.rows_per_micro_batch(),
                      " x ", job.training.sequence, " tokens in a step",
                      job.layout.dp > 1 ? absl::StrCat(", ", job.micro_batches_per_replica(), " for each replica") : "",
                      "\n");
}

// "1", or "1@1" in the second copy of the model, as in schedules.
std::string NameOf(const StagePlan& stage) {
  return absl::StrCat(stage.id.value(), stage.copy > 0 ? absl::StrCat("@", stage.copy) : "");
}

std::string Shards(const Plan& plan) {
  const LayoutConfig& layout = plan.job.layout;
  if (layout.tp == 1) return "";
  std::vector<std::string> stages;
  for (const StagePlan& stage : plan.stages) {
    const Traffic traffic = ShardTraffic(plan, stage);
    stages.push_back(
        absl::StrCat("stage ", NameOf(stage), " ", Grouped(traffic.bytes), " bytes in ", Grouped(traffic.collectives)));
  }
  return absl::StrCat("  Each layer is split over ", layout.tp, " shards",
                      layout.sequence_parallel ? ", and between layers each has a slice of the tokens" : "",
                      "; parameters, times and memory are those of one.\n  A shard gets from the others in a step: ",
                      absl::StrJoin(stages, ", "), " collectives.\n");
}

std::string Stages(const Plan& plan) {
  const bool recompute = std::any_of(plan.stages.begin(), plan.stages.end(),
                                     [](const StagePlan& stage) { return stage.recompute != Recomputation::kNone; });
  const int copies = plan.training.placement.copies();
  TextTable table({"stage", "rank", "nodes", "from", "to", "parameters", "in flight", "forward", "backward", "optimizer",
               recompute ? "recompute" : ""});
  for (const StagePlan& stage : plan.stages) {
    table.Add({NameOf(stage), absl::StrCat(stage.rank.value()), absl::StrCat(stage.end - stage.begin),
               plan.job.graph.nodes[stage.begin].name, plan.job.graph.nodes[stage.end - 1].name,
               Grouped(stage.parameters), absl::StrCat(stage.in_flight), Milliseconds(stage.costs.forward_ns),
               Milliseconds(stage.costs.backward_ns), Milliseconds(stage.costs.optimizer_ns),
               recompute ? RecomputeName(stage.recompute) : ""});
  }
  std::string text =
      absl::StrCat("\nStages (times of one micro-batch, ", plan.cost_source, ")\n", table.ToString({3, 4}));
  const PartitionResult& partition = plan.partition;
  const double above =
      static_cast<double>(partition.load_ns_max) / static_cast<double>(std::max<int64_t>(1, partition.load_bound_ns)) -
      1;
  absl::StrAppend(&text, "  Cuts: ", plan.cut_method, "; the busiest rank has ",
                  Milliseconds(partition.load_ns_max / copies), " a micro-batch with its messages, ",
                  Percent(std::max(0.0, above)), " above the bound that no cut can beat.\n");
  if (copies > 1) {
    absl::StrAppend(
        &text,
        "  Two copies of the model, each for one half of the micro-batches; 0@1 is stage 0 of the second one.\n");
  }
  if (!plan.report.weight_gradient_order.empty()) {
    absl::StrAppend(&text, "  The numbers depend on this schedule: ", plan.report.weight_gradient_order, ".\n");
  }
  absl::StrAppend(&text, Shards(plan));
  for (const TiedUses& tied : plan.tied) {
    std::vector<std::string> stages;
    for (const StageId stage : tied.stages) stages.push_back(absl::StrCat(stage.value()));
    absl::StrAppend(&text, "  ", tied.name, " is shared by stages ", absl::StrJoin(stages, ", "), ".\n");
  }
  return text;
}

// Bytes of a rank by kind; the kinds add up to what the device will hold.
struct RankBytes {
  int64_t weights = 0, gradients = 0, optimizer = 0, stash = 0, messages = 0, working = 0;
};

RankBytes BytesOfRank(const Plan& plan, PipelineRank rank) {
  RankBytes sum;
  for (const StagePlan& stage : plan.stages) {
    if (stage.rank != rank) continue;
    const StageMemory& memory = stage.memory;
    const auto slots = [&](Pool pool) {
      return plan.training.PoolSize(pool, stage.id, stage.copy) *
             plan.stage_bytes[stage.id.index()].slot[static_cast<size_t>(pool)];
    };
    sum.weights += memory.parameters + memory.packed;
    sum.gradients += memory.gradients;
    sum.optimizer += memory.optimizer + memory.kept;
    sum.stash += slots(Pool::kStash) + slots(Pool::kGradientStash);
    sum.messages +=
        slots(Pool::kInput) + slots(Pool::kOutput) + slots(Pool::kOutputGradient) + slots(Pool::kInputGradient);
  }
  sum.working = plan.report.ranks[rank.index()].allocated_bytes -
                (sum.weights + sum.gradients + sum.optimizer + sum.stash + sum.messages);
  return sum;
}

std::string Memory(const Plan& plan) {
  const std::vector<int64_t>& limits = plan.job.layout.memory_limit;
  TextTable table({"rank", "weights", "gradients", "optimizer", "activations", "messages", "working", "total",
               limits.empty() ? "" : "limit"});
  for (int rank = 0; rank < plan.job.layout.pp; ++rank) {
    const RankBytes bytes = BytesOfRank(plan, PipelineRank(rank));
    table.Add({absl::StrCat(rank), Grouped(bytes.weights), Grouped(bytes.gradients), Grouped(bytes.optimizer),
               Grouped(bytes.stash), Grouped(bytes.messages), Grouped(bytes.working),
               Grouped(plan.report.ranks[rank].allocated_bytes), limits.empty() ? "" : Grouped(limits[rank])});
  }
  std::string text = absl::StrCat("\nMemory per rank in bytes\n", table.ToString());
  const StagePlan &first = plan.stages.front(), &last = plan.stages[plan.training.placement.stages() - 1];
  if (first.in_flight != last.in_flight) {
    absl::StrAppend(
        &text, "  Activations differ between ranks, although layers may be equal: a stage keeps those of every\n",
        "  micro-batch in flight, ", first.in_flight, " in the first stage and ", last.in_flight, " in the last.\n");
  }
  return text;
}

// "F0--F1--....B0------": a box begins with its letter and micro-batch, as far as it is wide enough.
std::string ChartLine(const Timeline& timeline, PipelineRank rank, int columns) {
  int64_t end = 1;
  for (const Span& span : timeline.spans) end = std::max(end, span.end_ns);
  std::string line(static_cast<size_t>(columns), '.');
  const auto column = [&](int64_t time) {
    return static_cast<size_t>(std::llround(static_cast<double>(time) * columns / static_cast<double>(end)));
  };
  for (const Span& span : timeline.spans) {
    const bool compute = IsCompute(span.action.kind);
    if (span.rank != rank || (!compute && span.action.kind != ActionKind::kOptimizerStep)) continue;
    const size_t first = column(span.begin_ns), last = column(span.end_ns);
    std::string label = compute ? absl::StrCat(ActionKindName(span.action.kind), span.action.micro_batch.value()) : "O";
    if (label.size() > last - first) label.resize(std::min<size_t>(1, last - first));
    label.resize(last - first, compute ? '-' : 'O');
    line.replace(first, label.size(), label);
  }
  return line;
}

std::string Chart(const Plan& plan, int columns) {
  std::string text;
  const int ranks = plan.predicted.ranks, digits = static_cast<int>(absl::StrCat(ranks - 1).size());
  const int width = std::max(20, columns - digits - 10);
  for (int rank = 0; rank < ranks; ++rank) {
    absl::StrAppend(&text, "  rank ", absl::StrFormat("%*d", digits, rank), " |",
                    ChartLine(plan.predicted, PipelineRank(rank), width), "|\n");
  }
  return absl::StrCat(text,
                      "  F forward, B backward, I input gradient, W weight gradient, O optimizer, . idle; the number "
                      "is the micro-batch\n");
}

std::string Prediction(const Plan& plan, int columns) {
  const TimelineMetrics& metrics = plan.metrics;
  const double tokens = static_cast<double>(plan.job.training.batch * plan.job.training.sequence);
  std::vector<std::string> busy;
  for (const RankMetrics& rank : metrics.ranks) busy.push_back(Percent(1 - rank.bubble));
  const bool ahead = plan.post_validation.has_value();  // ranks may shift against each other
  return absl::StrCat("\nPredicted step: ", Milliseconds(metrics.step_ns), ", ",
                      Grouped(std::llround(tokens * 1e9 / static_cast<double>(std::max<int64_t>(1, metrics.step_ns)))),
                      " tokens/s; bubble ", Percent(ahead ? metrics.span_bubble : metrics.makespan_bubble),
                      ahead ? " of the span of " : " of the makespan of ",
                      Milliseconds(ahead ? metrics.span_ns : metrics.makespan_ns), "; ranks busy ",
                      absl::StrJoin(busy, ", "), "\n", Chart(plan, columns));
}

}  // namespace

std::string ToText(const Plan& plan, int columns) {
  return absl::StrCat(Summary(plan), Stages(plan), Memory(plan), GridText(plan), Prediction(plan, columns));
}

}  // namespace sluice
