// Generates tokens: prompts take places in groups of sequences, and the groups go round the pipeline, so that all its
// ranks work. A place whose answer has ended is given to the next prompt.
//
// An answer depends on its own prompt, rules and number alone: not on the layout, nor on the groups and what else is in
// them (in f32, and in bf16 where the processor's products don't depend on the number of rows).
// Threads: one caller. Ownership: the world outlives it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/world.h"
#include "runtime/checkpoint/parameter_source.h"
#include "runtime/planner/generation_plan.h"
#include "runtime/trainer/pipeline.h"

namespace sluice {

struct GenerationRequest {
  std::vector<int32_t> prompt;  // at least one token
  int64_t tokens_max = 0;       // of the answer; with the prompt at most the plan's context
  SamplingRules rules;
  std::vector<int32_t> end_tokens;  // one of them ends the answer, and is the last of it
};

struct GenerationTimes {
  Nanoseconds prefill = 0;
  Nanoseconds decode = 0;
  int64_t prompt_tokens = 0;
  int64_t decoded_tokens = 0;  // by decode; the first of each answer is prefill's
};

class TokenGenerator {
 public:
  // Without `parameters` the weights are random, from the plan's seed. Errors: of making the ranks (memory), of reading
  // the parameters.
  static absl::StatusOr<std::unique_ptr<TokenGenerator>> Create(World* world, Plan plan, const PipelineOptions& options,
                                                                const ParameterSource* parameters);

  // Takes the next tokens of an answer, some rounds at a time; false: that answer is to end. Called by the caller's
  // thread.
  using OnTokens = std::function<bool(size_t request, absl::Span<const int32_t> tokens)>;
  // Until all answers have ended. INVALID_ARGUMENT names the request that doesn't fit the context or the vocabulary.
  absl::Status Generate(absl::Span<const GenerationRequest> requests, const OnTokens& on_tokens);

  // Of all calls so far.
  const GenerationTimes& times() const { return times_; }
  const Plan& plan() const { return plan_; }
  Pipeline& pipeline() { return *pipeline_; }

 private:
  // A place for a sequence.
  struct Place {
    int64_t request = -1;  // -1: free
    int64_t length = 0;    // tokens whose keys are in the cache: the position of the next one
    int64_t left = 0;      // tokens that may still be drawn
    int32_t last = 0;      // the token drawn last
  };
  struct Items;  // micro-batches with what they point to

  TokenGenerator(World* world, Plan plan) : world_(world), plan_(std::move(plan)) {}
  absl::Status CheckRequests() const;
  absl::Status TakeIn(std::deque<size_t>* waiting);
  absl::Status Prefill(const std::vector<int64_t>& places);
  absl::Status Decode();
  // Hands new tokens of a place over, up to the end of its answer.
  void Give(int64_t place, absl::Span<const int32_t> tokens);
  std::vector<int64_t> PlacesOfGroup(int group) const;
  const GenerationPlan& generating() const { return *plan_.generating; }

  World* const world_;
  const Plan plan_;
  std::unique_ptr<Pipeline> pipeline_;
  std::vector<Place> places_;  // group after group
  absl::Span<const GenerationRequest> requests_;
  const OnTokens* on_tokens_ = nullptr;
  GenerationTimes times_;
};

}  // namespace sluice
