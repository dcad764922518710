// A forecast as a table, and as JSON.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "runtime/planner/text_table.h"
#include "runtime/trace/text_chart.h"
#include "scheduler/timeline.h"
#include "tools/forecast.h"
#include "tools/measure/model_flops.h"

namespace sluice::tools {
namespace {

// What a rank does in the step, and what it holds.
struct RankForecast {
  std::vector<int> stages;
  size_t layers = 0;
  int64_t busy_ns = 0, reduce_ns = 0, optimizer_ns = 0;
  double bubble = 0;
  int64_t memory_bytes = 0;
};

struct Totals {
  TimelineMetrics metrics;
  std::vector<RankForecast> ranks;
  double tokens_per_second = 0;
  double model_flops_share = 0;  // of the data sheet's
};

Totals Sum(const Forecast& forecast, const Timeline& timeline) {
  const Plan& plan = forecast.plan;
  Totals totals{.metrics = Measure(timeline)};
  totals.ranks.resize(plan.job.layout.pp);
  for (const StagePlan& stage : plan.stages) {
    totals.ranks[stage.rank.index()].stages.push_back(stage.id.value());
    totals.ranks[stage.rank.index()].layers += stage.end - stage.begin;
  }
  for (const Span& span : timeline.spans) {
    RankForecast& rank = totals.ranks[span.rank.index()];
    if (span.action.kind == ActionKind::kOptimizerStep) rank.optimizer_ns += span.end_ns - span.begin_ns;
    if (span.action.kind == ActionKind::kReduceGradient) rank.reduce_ns += span.end_ns - span.begin_ns;
  }
  for (size_t r = 0; r < totals.ranks.size(); ++r) {
    totals.ranks[r].busy_ns = totals.metrics.ranks[r].busy_ns;
    totals.ranks[r].bubble = totals.metrics.ranks[r].bubble;
    totals.ranks[r].memory_bytes = plan.report.ranks[r].allocated_bytes;
  }
  const auto tokens = static_cast<double>(plan.job.training.batch * plan.job.training.sequence);
  totals.tokens_per_second = 1e9 * tokens / static_cast<double>(std::max<int64_t>(1, totals.metrics.step_ns));
  const double peak = plan.job.training.precision == Precision::kBF16 ? forecast.device.peak_flops_bf16
                                                                      : forecast.device.peak_flops_f32;
  totals.model_flops_share =
      FlopsPerToken(plan.job) * totals.tokens_per_second / (peak * plan.job.layout.grid().ranks());
  return totals;
}

std::string Milliseconds(int64_t ns) { return absl::StrFormat("%.2f", static_cast<double>(ns) / 1e6); }

std::string Heading(const Forecast& forecast) {
  const JobConfig& job = forecast.plan.job;
  const RankGrid grid = job.layout.grid();
  std::string text =
      absl::StrCat(job.graph.name, " on ", forecast.devices, " x ", forecast.device.name, " in ", forecast.hosts,
                   forecast.hosts == 1 ? " host" : " hosts", ": pp ", grid.pp(), " x dp ", grid.dp(), " x tp ",
                   grid.tp(), ", schedule ", job.schedule.title(), ", ", job.micro_batches_per_replica(),
                   " micro-batches of ", job.training.rows_per_micro_batch(), " x ", job.training.sequence, " tokens, ",
                   job.training.precision == Precision::kBF16 ? "bf16" : "f32", "\n");
  if (grid.ranks() < forecast.devices) {
    absl::StrAppend(&text, "Only ", grid.ranks(), " of the devices work: the job has as many ranks; --set layout.pp, ",
                    "dp or tp gives it more.\n");
  }
  return text;
}

std::string Table(const Forecast& forecast, const Totals& totals) {
  const bool replicas = forecast.plan.job.layout.dp > 1 || forecast.plan.training.placement.copies() > 1;
  TextTable table({"rank", "stages", "layers", "compute", replicas ? "reduce" : "", "optimizer", "bubble",
                   "memory, bytes", "of the device"});
  for (size_t r = 0; r < totals.ranks.size(); ++r) {
    const RankForecast& rank = totals.ranks[r];
    table.Add({absl::StrCat(r), absl::StrJoin(rank.stages, " "), absl::StrCat(rank.layers), Milliseconds(rank.busy_ns),
               replicas ? Milliseconds(rank.reduce_ns) : "", Milliseconds(rank.optimizer_ns),
               absl::StrFormat("%.1f %%", 100 * rank.bubble), Grouped(rank.memory_bytes),
               absl::StrFormat("%.1f %%", 100.0 * static_cast<double>(rank.memory_bytes) /
                                              static_cast<double>(forecast.device.memory_bytes))});
  }
  return absl::StrCat("\nRanks of one pipeline (times of a step in ms)\n", table.ToString());
}

}  // namespace

std::string ForecastToText(const Forecast& forecast, const Timeline& timeline) {
  const Totals totals = Sum(forecast, timeline);
  const double ranks = forecast.plan.job.layout.grid().ranks();
  return absl::StrCat(
      Heading(forecast), Table(forecast, totals), "\nStep ", Milliseconds(totals.metrics.step_ns), " ms; bubble ",
      absl::StrFormat("%.1f %%", 100 * totals.metrics.makespan_bubble), "; ",
      Grouped(static_cast<int64_t>(totals.tokens_per_second)), " tokens/s, ",
      Grouped(static_cast<int64_t>(totals.tokens_per_second / ranks)),
      " a device: ", absl::StrFormat("%.1f %%", 100 * totals.model_flops_share),
      " of the data sheet's FLOPs (6N + 12LdT a token).\n",
      "An estimate from FLOPs, bytes and the rates of the device's description; nothing was measured.\n\n",
      DrawText({timeline}));
}

std::string ForecastToJson(const Forecast& forecast, const Timeline& timeline) {
  const Totals totals = Sum(forecast, timeline);
  nlohmann::json json = {{"model", forecast.plan.job.graph.name},
                         {"device", forecast.device.name},
                         {"devices", forecast.devices},
                         {"hosts", forecast.hosts},
                         {"schedule", forecast.plan.job.schedule.title()},
                         {"step_ns", totals.metrics.step_ns},
                         {"makespan_bubble", totals.metrics.makespan_bubble},
                         {"tokens_per_second", totals.tokens_per_second},
                         {"model_flops_share", totals.model_flops_share},
                         {"device_memory_bytes", forecast.device.memory_bytes},
                         {"ranks", nlohmann::json::array()}};
  for (const RankForecast& rank : totals.ranks) {
    json["ranks"].push_back({{"stages", rank.stages},
                             {"layers", rank.layers},
                             {"busy_ns", rank.busy_ns},
                             {"reduce_ns", rank.reduce_ns},
                             {"optimizer_ns", rank.optimizer_ns},
                             {"bubble", rank.bubble},
                             {"memory_bytes", rank.memory_bytes}});
  }
  return json.dump(2) + "\n";
}

}  // namespace sluice::tools
