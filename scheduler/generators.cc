#include "scheduler/generators.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sluice {

const std::vector<Generator>& Generators() {
  static const auto& generators = *new std::vector<Generator>{
      {"gpipe", "all forwards, then all backwards; holds all micro-batches", 1, GenerateGPipe},
      {"1f1b", "one forward, one backward in turn; rank r holds p-r micro-batches", 1, Generate1F1B},
      {"eager_1f1b", "1f1b with twice the warm-up, which hides transfers", 1, GenerateEager1F1B},
      {"interleaved_1f1b", "1f1b over v chunks per rank: a v-th of the bubble, v times the transfers", 2,
       GenerateInterleaved1F1B},
      {"looped_bfs", "v chunks per rank, one after the other (breadth-first); holds all micro-batches", 2,
       GenerateLoopedBFS},
      {"zb_h1", "weight gradients fill bubbles: a third of 1f1b's bubble with its memory", 1, GenerateZBH1},
      {"zb_h2", "weight gradients fill bubbles: no bubble in span with twice 1f1b's memory", 1, GenerateZBH2},
      {"zb_auto", "zero bubble by a heuristic over each stage's costs, under a memory cap", 1, GenerateZeroBubbleAuto},
      {"interleaved_zb", "zb_h1 over v chunks per rank", 2, GenerateInterleavedZeroBubble},
      {"zb_v", "two chunks placed as a V: no bubble in span with 1f1b's memory; follows costs and a cap", 2,
       GenerateZBV},
      {"v_half", "two chunks placed as a V: half of 1f1b's memory and half of its bubble", 2, GenerateVHalf},
      {"v_min", "two chunks placed as a V: a third of 1f1b's memory, two thirds of its bubble", 2, GenerateVMin},
      {"dual_pipe_v", "two chunks placed as a V, forwards overlapped with backwards", 2, GenerateDualPipeV},
      {"dual_pipe", "two copies of the model against each other, forwards overlapped with backwards", 1,
       GenerateDualPipe},
      {"chimera", "two copies of the model against each other: half of 1f1b's bubble", 1, GenerateChimera},
      {"hanayo", "v/2 waves over the ranks, backward first", 2, GenerateHanayo},
      {"forward_only", "forwards only, for evaluation", 1, GenerateForwardOnly},
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

int ChunksOf(absl::string_view name) {
  for (const Generator& generator : Generators()) {
    if (name == absl::string_view(generator.name)) return generator.chunks;
  }
  return 1;
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
