#include "scheduler/generators.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sluice {

const std::vector<Generator>& Generators() {
  static const auto& generators = *new std::vector<Generator>{
      {"gpipe", "all forwards, then all backwards", GenerateGPipe},
      {"1f1b", "one forward, one backward in turn; holds p-r micro-batches", Generate1F1B},
      {"eager_1f1b", "1f1b with twice the warm-up, hides transfers", GenerateEager1F1B},
      {"interleaved_1f1b", "1f1b over v chunks per rank", GenerateInterleaved1F1B},
      {"looped_bfs", "v chunks per rank, one after the other (breadth-first)", GenerateLoopedBFS},
      {"zb_h1", "zero bubble with 1f1b's memory", GenerateZBH1},
      {"zb_h2", "zero bubble with twice 1f1b's memory", GenerateZBH2},
      {"zb_auto", "zero bubble by a heuristic over costs, under a memory cap", GenerateZeroBubbleAuto},
      {"interleaved_zb", "zero bubble over v chunks per rank", GenerateInterleavedZeroBubble},
      {"zb_v", "zero bubble over two chunks placed as a V", GenerateZBV},
      {"v_half", "two chunks placed as a V, half of 1f1b's memory and bubble", GenerateVHalf},
      {"v_min", "two chunks placed as a V, a third of 1f1b's memory", GenerateVMin},
      {"dual_pipe_v", "overlapped pairs over two chunks placed as a V", GenerateDualPipeV},
      {"dual_pipe", "overlapped pairs of two copies run against each other", GenerateDualPipe},
      {"chimera", "two copies of the model run against each other", GenerateChimera},
      {"hanayo", "v/2 waves over the ranks, backward first", GenerateHanayo},
      {"forward_only", "forwards only, for evaluation", GenerateForwardOnly},
  };
  return generators;
}

absl::StatusOr<std::vector<PassCosts>> CostsOfStages(const std::vector<PassCosts>& costs, int stages) {
  const size_t count = costs.size();
  if (count > 1 && count != static_cast<size_t>(stages)) {
    return absl::InvalidArgumentError(absl::StrCat("there are costs of ", count, " stages; give those of all ", stages,
                                                   " stages, one for all of them, or none"));
  }
  for (size_t s = 0; s < count; ++s) {
    const PassCosts& c = costs[s];
    const bool times = c.forward_ns >= 0 && c.input_gradient_ns >= 0 && c.weight_gradient_ns >= 0 && c.transfer_ns >= 0;
    if (times && c.weight_bytes >= 0 && c.weight_bytes <= c.forward_bytes) continue;
    return absl::InvalidArgumentError(absl::StrCat("the costs of stage ", s, " can't be: no time may be negative, and ",
                                                   "what W needs is a part of what F leaves (", c.weight_bytes, " of ",
                                                   c.forward_bytes, " bytes)"));
  }
  return count > 1 ? costs : std::vector<PassCosts>(stages, count == 1 ? costs[0] : PassCosts{});
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
