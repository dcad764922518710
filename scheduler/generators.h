// The published schedules, one pure function and one file each (generators/*.cc). Times don't matter here: a generator
// gives orders, except those whose description says that they follow costs.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/schedule.h"

namespace sluice {

// What the generators that follow costs take into account of one stage and one micro-batch.
struct PassCosts {
  int64_t forward_ns = 1;
  int64_t input_gradient_ns = 1;
  int64_t weight_gradient_ns = 1;
  int64_t transfer_ns = 0;    // of a message that leaves the stage for another rank, either way
  int64_t forward_bytes = 1;  // held from F on
  int64_t weight_bytes = 1;   // the part of it that I leaves for W
  friend bool operator==(const PassCosts&, const PassCosts&) = default;
};

struct GeneratorParams {
  int ranks = 1;          // p
  int chunks = 1;         // v, stages per rank; generators with a fixed v accept 1 or their own
  int micro_batches = 1;  // m, over all copies
  int group_size = 0;     // interleaved schedules: micro-batches per group, 0: m / max(1, m / p)
  // zb_auto, zb_v: per stage, or one entry for every stage; empty: all as PassCosts{}.
  std::vector<PassCosts> costs;
  // zb_auto, zb_v: most memory of each rank, in forward passes of one micro-batch through all of that rank's stages
  // (cap x the sum of their forward_bytes); 0: p (as 1F1B; zb_v: or what its handcrafted order needs, if more).
  double in_flight_cap = 0;
};

// `costs` of each of `stages` stages. Errors: INVALID_ARGUMENT if there are neither none, one nor `stages` of them, or
// if one of them can't be.
absl::StatusOr<std::vector<PassCosts>> CostsOfStages(const std::vector<PassCosts>& costs, int stages);

struct Generator {
  std::string name;     // "1f1b"
  std::string summary;  // one line for --help
  int chunks = 1;       // stages per rank where no number is given
  absl::StatusOr<Schedule> (*generate)(const GeneratorParams& params);
};

// All generators, in the order of the page docs/schedules.md.
const std::vector<Generator>& Generators();

// Stages per rank of a generator where no number is given; 1 for names that don't exist.
int ChunksOf(absl::string_view name);

// By name. Errors: NOT_FOUND with the names there are; INVALID_ARGUMENT with the rule that the numbers break.
absl::StatusOr<Schedule> Generate(absl::string_view name, const GeneratorParams& params);

// Generation of tokens (ForwardPath): in every round each rank takes the groups in turn, so that p or more groups keep
// all ranks at work while their tokens go round. Not among Generators(): it trains nothing.
struct GenerationParams {
  int ranks = 1;   // p, a stage each
  int groups = 1;  // of sequences, in flight at once
  int rounds = 1;  // tokens of each sequence
};
absl::StatusOr<Schedule> GenerateGeneration(const GenerationParams& params);

absl::StatusOr<Schedule> GenerateForwardOnly(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateGPipe(const GeneratorParams& params);
absl::StatusOr<Schedule> Generate1F1B(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateEager1F1B(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateInterleaved1F1B(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateLoopedBFS(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateZBH1(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateZBH2(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateInterleavedZeroBubble(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateZeroBubbleAuto(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateZBV(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateVHalf(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateVMin(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateDualPipeV(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateDualPipe(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateChimera(const GeneratorParams& params);
absl::StatusOr<Schedule> GenerateHanayo(const GeneratorParams& params);

}  // namespace sluice
