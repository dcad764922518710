// One step's rows, cut into micro-batches: what every rank needs to know of them. The same on all ranks, whatever the layout.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/config/job.h"
#include "runtime/data/dataset.h"
#include "runtime/data/sampler.h"
#include "stages/stage.h"

namespace sluice {

struct BatchShape {
  int64_t rows = 1;           // of the whole step
  int64_t micro_batches = 1;  // a divisor of rows
  int64_t sequence = 1;
  int64_t gradient_groups = 1;  // a divisor of micro_batches
};
BatchShape ShapeOf(const TrainingConfig& training);

// Owns what its micro_batches point to; don't move it while they are in use. Refilling it allocates nothing.
struct Batch {
  explicit Batch(const BatchShape& shape);
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  BatchShape shape;
  std::vector<int32_t> tokens, targets, positions, first_key;  // [rows * sequence]
  std::vector<int32_t> samples;                                // [rows]
  std::vector<MicroBatchInfo> micro_batches;
  int64_t valid_targets = 0;

  std::vector<int32_t> row_tokens, row_pieces;  // one row's tokens and one more; of BatchMaker
};

// How documents and targets are read, from the job.
struct TargetRules {
  bool separate_documents = false;
  std::optional<int64_t> end_token;
  std::optional<int64_t> ignore_index;
};
TargetRules RulesOf(const DataConfig& data);

class BatchMaker {
 public:
  // The dataset outlives it.
  BatchMaker(const Dataset* dataset, const BatchShape& shape, const TargetRules& rules, uint64_t seed);

  // Step 0, 1, ... of training: rows step*rows ... of the sampler's order.
  void Training(int64_t step, Batch* batch) const;

  // The held-out text is cut into windows of `sequence` tokens, the last padded with ignored targets. Batches are counted;
  // of more than `batches_max` (0: all) as many are used, evenly spread.
  int64_t EvaluationBatches(int64_t batches_max) const;
  void Evaluation(int64_t index, int64_t batches_max, Batch* batch) const;

 private:
  int64_t HeldOutWindows() const;
  void FillRow(const TokenStream& stream, int64_t offset, int64_t row, int64_t sample, Batch* batch) const;
  void PadRow(int64_t row, Batch* batch) const;
  void Finish(int64_t step, bool training, Batch* batch) const;

  const Dataset* dataset_;
  BatchShape shape_;
  TargetRules rules_;
  WindowSampler sampler_;
};

}  // namespace sluice
