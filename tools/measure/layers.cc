#include "tools/measure/layers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "tools/measure/result.h"
#include "tools/measure/run.h"

namespace sluice::tools {
namespace {

using Passes = std::array<PassTime, kLayerPasses>;

PassTime Sum(const Passes& passes) {
  PassTime sum;
  for (const PassTime& pass : passes) sum += pass;
  return sum;
}

// Whether two layers do the same, whatever they are called.
bool Alike(Node a, const Node& b) {
  a.name = b.name;
  return a == b;
}

// What the stages' actions of one micro-batch take together.
double ActionNs(const Costs& costs) {
  double sum = 0;
  for (const StageCosts& stage : costs.stages) {
    const int64_t apart = stage.input_gradient_ns + stage.weight_gradient_ns;
    sum += static_cast<double>(stage.forward_ns + (apart > 0 ? apart : stage.backward_ns));
  }
  return sum;
}

std::string Line(const std::string& name, const Passes& passes, double micro_batches, double total) {
  const PassTime sum = Sum(passes);
  std::string line = absl::StrFormat("  %-34s", name);
  for (const PassTime& pass : passes) absl::StrAppendFormat(&line, " %9.3f", pass.ms / micro_batches);
  absl::StrAppendFormat(&line, " %10.2f %6.1f%%", sum.ms, total > 0 ? 100 * sum.ms / total : 0);
  if (sum.floor.ms > 0 && sum.ms > 0) absl::StrAppendFormat(&line, " %8.1f%%", 100 * sum.floor.ms / sum.ms);
  return line + "\n";
}

}  // namespace

double StepByLayer::total_ms() const {
  double sum = end_of_step.ms;
  for (const Passes& passes : nodes) sum += Sum(passes).ms;
  return sum;
}

StepByLayer ByLayer(absl::Span<const std::vector<OperationTime>> steps, size_t nodes, int threads_per_rank,
                    const MachineRates& rates) {
  CHECK(!steps.empty());
  StepByLayer result{.nodes = std::vector<Passes>(nodes)};
  const auto pass_of = [&](int label) -> PassTime& {
    if (label < 0) return result.end_of_step;
    const LayerWork work = WorkOf(label);
    return result.nodes[work.node][static_cast<size_t>(work.pass)];
  };
  std::map<int, std::vector<double>> samples;  // of each label: its milliseconds in each step
  for (size_t step = 0; step < steps.size(); ++step) {
    for (const OperationTime& time : steps[step]) {
      std::vector<double>& ms = samples[time.label];
      ms.resize(steps.size());
      ms[step] += static_cast<double>(time.time) / kMillisecond * threads_per_rank;
      if (step == 0) pass_of(time.label).floor += FloorOf(time, rates);  // all steps do the same
    }
  }
  for (auto& [label, ms] : samples) pass_of(label).ms = Median(std::move(ms));
  return result;
}

LayerProfile ProfileOf(const Plan& plan, const StepByLayer& step, const Costs& costs, const std::string& processor) {
  const std::vector<Node>& nodes = plan.job.graph.nodes;
  LayerProfile profile = EmptyProfileOf(plan.job);
  profile.processor = processor;
  profile.hand_over_ns = costs.transfer_latency_ns;
  // Every shard does its part of every micro-batch.
  const RankGrid grid = plan.job.layout.grid();
  const double divisor = static_cast<double>(plan.job.training.micro_batches * profile.threads_per_rank) * grid.tp();
  double sum = 0;
  for (const Passes& passes : step.nodes) sum += Sum(passes).ms * kMillisecond / divisor;
  const double scale = sum > 0 && ActionNs(costs) > 0 ? ActionNs(costs) / sum : 1;
  for (size_t node = 0; node < nodes.size(); ++node) {
    const auto median = [&](LayerPass pass) {
      std::vector<double> alike;
      for (size_t other = 0; other < nodes.size(); ++other) {
        if (Alike(nodes[other], nodes[node])) alike.push_back(step.nodes[other][static_cast<size_t>(pass)].ms);
      }
      return std::llround(Median(std::move(alike)) * kMillisecond / divisor * scale);
    };
    profile.layers[node].times = {.forward_ns = median(LayerPass::kForward),
                                  .input_gradient_ns = median(LayerPass::kInputGradient),
                                  .weight_gradient_ns = median(LayerPass::kWeightGradient)};
  }
  int64_t parameters = 0;
  for (const StagePlan& stage : plan.stages) parameters += stage.parameters;
  if (parameters > 0) {
    profile.optimizer_ns_per_parameter = step.end_of_step.ms * kMillisecond / profile.threads_per_rank / grid.tp() /
                                         grid.dp() / static_cast<double>(parameters);
  }
  return profile;
}

std::string ToText(const Plan& plan, const StepByLayer& step) {
  const std::vector<Node>& nodes = plan.job.graph.nodes;
  const double total = step.total_ms(), micro_batches = static_cast<double>(plan.job.training.micro_batches);
  std::string text = absl::StrFormat(
      "\nBy layer: F, I and W of one micro-batch in ms, and all of a step on all threads:\n"
      "  %-34s %9s %9s %9s %10s %7s %9s\n",
      "", "F", "I", "W", "step ms", "share", "of floor");
  std::vector<std::pair<std::string, Passes>> kinds;  // in the model's order
  for (size_t node = 0; node < nodes.size(); ++node) {
    const std::string kind(Name(nodes[node].kind));
    auto found = std::find_if(kinds.begin(), kinds.end(), [&](const auto& entry) { return entry.first == kind; });
    if (found == kinds.end()) found = kinds.insert(kinds.end(), {kind, {}});
    for (size_t pass = 0; pass < kLayerPasses; ++pass) found->second[pass] += step.nodes[node][pass];
  }
  for (const auto& [kind, passes] : kinds)
    absl::StrAppend(&text, Line(absl::StrCat("all ", kind), passes, micro_batches, total));
  const PassTime& end = step.end_of_step;
  absl::StrAppendFormat(&text, "  %-34s %9s %9s %9s %10.2f %6.1f%% %8.1f%%\n\n", "end of the step", "", "", "", end.ms,
                        100 * end.ms / total, end.ms > 0 ? 100 * end.floor.ms / end.ms : 0);
  for (const StagePlan& stage : plan.stages) {
    if (stage.copy > 0) continue;
    for (size_t node = stage.begin; node < stage.end; ++node) {
      const std::string name = absl::StrCat("stage ", stage.id.value(), "  ", nodes[node].name);
      absl::StrAppend(&text, Line(name, step.nodes[node], micro_batches, total));
    }
  }
  return text;
}

}  // namespace sluice::tools
