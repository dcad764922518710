#include "scheduler/generators.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sluice {

const std::vector<Generator>& Generators() {
  static const auto& generators = *new std::vector<Generator>{
      {"gpipe", "all forwards, then all backwards", GenerateGPipe},
      {"1f1b", "one forward, one backward in turn; holds p-r micro-batches", Generate1F1B},
      {"forward_only", "forwards only, for evaluation", GenerateForwardOnly},
  };
  return generators;
}

absl::StatusOr<Schedule> Generate(absl::string_view name, const GeneratorParams& params) {
  for (const Generator& generator : Generators()) {
    if (name == absl::string_view(generator.name)) return generator.generate(params);
  }
  const auto print_name = [](std::string* out, const Generator& generator) { out->append(generator.name); };
  return absl::NotFoundError(
      absl::StrCat("no schedule is called '", name, "'; there are: ", absl::StrJoin(Generators(), ", ", print_name)));
}

}  // namespace sluice
