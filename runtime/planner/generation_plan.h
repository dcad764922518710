// The plan of generation: stages that keep keys and values, and the programs that take prompts in and draw tokens,
// proven as those of training. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/planner/plan.h"

namespace sluice {

struct GenerationSettings {
  LayerGraph graph;
  Precision precision = Precision::kF32;
  LayoutConfig layout;  // pp, tp, threads_per_rank, pin, layers_per_stage, memory_limit; the rest as built
  int groups = 1;       // as many as pp keep all ranks at work
  int64_t group_sequences = 1;
  int64_t context = 0;           // tokens of a sequence: prompt and answer
  int64_t prefill_tokens = 256;  // of a micro-batch of prompts
  int rounds = 8;                // of tokens, between two looks at who has ended
  uint64_t seed = 1;             // of weights that nobody reads in
};

// Stages are cut by the bytes of their weights, which a decoded token waits for. Errors: INVALID_ARGUMENT for sizes
// that don't fit the model, UNIMPLEMENTED for GPUs, RESOURCE_EXHAUSTED where a rank's memory limit doesn't do.
absl::StatusOr<Plan> MakeGenerationPlan(const GenerationSettings& settings);

// Of every stage of such a plan.
StageOptions GenerationOptionsOf(const Plan& plan, int shard = 0);
// With so many tokens in a micro-batch.
std::vector<StageMessages> GenerationMessagesOf(const Plan& plan, int64_t tokens);

}  // namespace sluice
