#include "runtime/trainer/run_facts.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/philox.h"
#include "runtime/trainer/fingerprints.h"
#include "stages/graph_io.h"

namespace sluice {
namespace {

constexpr char kModel[] = "model";

// With other values of these the numbers are equal but for rounding.
constexpr std::array kRounding = {"training.micro_batches",
                                  "training.gradient_groups",
                                  "layout.tp",
                                  "layout.device",
                                  "layout.algorithms",
                                  kProgramFact,
                                  "build"};
bool IsRounding(const std::string& name) {
  return std::find(kRounding.begin(), kRounding.end(), name) != kRounding.end();
}

// As many digits as tell it from its neighbours.
std::string TextOf(double value) {
  std::array<char, 32> text;
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  return std::string(text.data(), end);
}
std::string TextOf(bool value) { return value ? "true" : "false"; }
std::string TextOf(int64_t value) { return absl::StrCat(value); }
std::string TextOf(const std::optional<int64_t>& value) { return value ? absl::StrCat(*value) : "none"; }

// How parameters begin is no matter any more.
std::string ModelText(LayerGraph graph) {
  for (Node& node : graph.nodes) node.init_deviation = node.projection_deviation = 0;
  return GraphToText(graph);
}

void AddTraining(const JobConfig& job, RunFacts* facts) {
  const TrainingConfig& training = job.training;
  facts->insert(facts->end(), {{"data.documents.separate", TextOf(job.data.separate_documents)},
                               {"data.documents.end_token", TextOf(job.data.end_token)},
                               {"data.ignore_index", TextOf(job.data.ignore_index)},
                               {"training.batch", TextOf(training.batch)},
                               {"training.micro_batches", TextOf(training.micro_batches)},
                               {"training.sequence", TextOf(training.sequence)},
                               {"training.precision", training.precision == Precision::kF32 ? "f32" : "bf16"},
                               {"training.seed", absl::StrCat(training.seed)},
                               {"training.gradient_groups", TextOf(training.gradient_groups)},
                               {"layout.tp", TextOf(int64_t{job.layout.tp})},
                               {"layout.device", job.layout.device == DeviceKind::kCuda ? "cuda" : "cpu"},
                               {"layout.algorithms", absl::StrCat(absl::Hex(HashName(job.layout.algorithms_text)))}});
}

void AddOptimizer(const OptimizerConfig& optimizer, RunFacts* facts) {
  facts->insert(facts->end(), {{"optimizer.learning_rate", TextOf(optimizer.learning_rate)},
                               {"optimizer.warm_up", TextOf(optimizer.warm_up)},
                               {"optimizer.minimum_learning_rate", TextOf(optimizer.minimum_learning_rate)},
                               {"optimizer.decay_steps", TextOf(optimizer.decay_steps)},
                               {"optimizer.beta1", TextOf(optimizer.beta1)},
                               {"optimizer.beta2", TextOf(optimizer.beta2)},
                               {"optimizer.epsilon", TextOf(optimizer.epsilon)},
                               {"optimizer.weight_decay", TextOf(optimizer.weight_decay)},
                               {"optimizer.clip_norm", TextOf(optimizer.clip_norm)}});
}

// Of two long texts the first lines that differ.
std::string Difference(const std::string& name, const std::string& was, const std::string& is) {
  if (name != kModel) return absl::StrCat(name, " was ", was, ", is ", is);
  const std::vector<std::string> before = absl::StrSplit(was, '\n'), now = absl::StrSplit(is, '\n');
  size_t line = 0;
  while (line < before.size() && line < now.size() && before[line] == now[line]) ++line;
  const auto at = [line](const std::vector<std::string>& lines) {
    return line < lines.size() ? lines[line] : "its end";
  };
  return absl::StrCat("the model is another one: in line ", line + 1, " of its graph was \"", at(before), "\", is \"",
                      at(now), "\"");
}

}  // namespace

RunFacts FactsOf(const Plan& plan, const Dataset& dataset, const std::string& program) {
  RunFacts facts = {{kProgramFact, program},
                    {"build", BuildFingerprint()},
                    {kModel, ModelText(plan.job.graph)},
                    {kDataFact, DataFingerprint(dataset.training())}};
  AddTraining(plan.job, &facts);
  AddOptimizer(plan.job.optimizer, &facts);
  return facts;
}

RunChanges Compare(const RunFacts& was, const RunFacts& is) {
  RunChanges changes;
  for (const auto& [name, value] : is) {
    const auto before = std::find_if(was.begin(), was.end(), [&](const auto& fact) { return fact.first == name; });
    if (before == was.end() || before->second == value) continue;
    (IsRounding(name) ? changes.rounding : changes.training).push_back(Difference(name, before->second, value));
  }
  return changes;
}

}  // namespace sluice
