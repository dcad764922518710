// Small models and what they are trained on, for tests of stages.
#pragma once

#include <cstdint>
#include <vector>

#include "base/philox.h"
#include "stages/families/gpt2.h"
#include "stages/families/llama.h"
#include "stages/families/mlp.h"
#include "stages/graph.h"
#include "tests/stages/reference_model.h"

namespace sluice {

inline constexpr int64_t kVocabulary = 29, kSequence = 11, kRows = 3;
inline constexpr uint64_t kModelSeed = 1234;

// Sizes that are no multiple of any vector's width, a vocabulary and (33) tokens that shards can't share equally.
inline LayerGraph SmallGpt2(float dropout = 0) {
  return Gpt2Graph(
             {.layers = 2, .channels = 20, .heads = 4, .vocabulary = kVocabulary, .positions = 16, .dropout = dropout})
      .value();
}
inline LayerGraph SmallLlama(int64_t kv_heads, int64_t width, bool tied, float dropout = 0) {
  return LlamaGraph({.layers = 2,
                     .channels = 18,
                     .heads = 4,
                     .kv_heads = kv_heads,
                     .head_size = 6,
                     .width = width,
                     .vocabulary = kVocabulary,
                     .max_sequence = 16,
                     .dropout = dropout,
                     .tied = tied})
      .value();
}
inline LayerGraph SmallMlp() {
  return MlpGraph(
             {.layers = 2, .channels = 10, .width = 21, .vocabulary = kVocabulary, .positions = 16, .max_sequence = 16})
      .value();
}

// The micro-batches of a step: random tokens, every seventh target ignored.
inline std::vector<ReferenceBatch> Batches(int count, int64_t step, int64_t rows = kRows,
                                           int64_t sequence = kSequence) {
  std::vector<ReferenceBatch> batches;
  uint64_t state = 77 + step;
  for (int b = 0; b < count; ++b) {
    ReferenceBatch batch{.rows = rows, .sequence = sequence, .seed = kModelSeed, .step = step};
    for (int64_t i = 0; i < rows * sequence; ++i) {
      state = MixBits(state);
      batch.tokens.push_back(static_cast<int32_t>(state % kVocabulary));
      batch.targets.push_back(state % 7 == 0 ? -1 : static_cast<int32_t>((state >> 20) % kVocabulary));
      batch.positions.push_back(static_cast<int32_t>(i % sequence));
    }
    for (int64_t row = 0; row < rows; ++row) {
      batch.samples.push_back(static_cast<int32_t>((step * count + b) * rows + row));
    }
    batches.push_back(batch);
  }
  return batches;
}

}  // namespace sluice
