#include "runtime/data/batch.h"

#include <algorithm>

#include "base/check.h"

namespace sluice {

constexpr int32_t kIgnored = -1;

BatchShape ShapeOf(const TrainingConfig& training) {
  return {.rows = training.batch,
          .micro_batches = training.micro_batches,
          .sequence = training.sequence,
          .gradient_groups = training.gradient_groups};
}

TargetRules RulesOf(const DataConfig& data) { return {data.separate_documents, data.end_token, data.ignore_index}; }

Batch::Batch(const BatchShape& s)
    : shape(s),
      tokens(s.rows * s.sequence),
      targets(s.rows * s.sequence),
      positions(s.rows * s.sequence),
      first_key(s.rows * s.sequence),
      samples(s.rows),
      micro_batches(s.micro_batches),
      row_tokens(s.sequence + 1),
      row_pieces(s.sequence + 1) {
  CHECK_EQ(s.rows % s.micro_batches, 0);
  CHECK_EQ(s.micro_batches % s.gradient_groups, 0);
}

BatchMaker::BatchMaker(const Dataset* dataset, const BatchShape& shape, const TargetRules& rules, uint64_t seed)
    : dataset_(dataset), shape_(shape), rules_(rules), sampler_(dataset->training().size(), shape.sequence, seed) {}

void BatchMaker::Training(int64_t step, Batch* batch) const {
  for (int64_t row = 0; row < shape_.rows; ++row) {
    const int64_t sample = step * shape_.rows + row;
    FillRow(dataset_->training(), sampler_.Offset(sample), row, sample, batch);
  }
  Finish(step, /*training=*/true, batch);
}

// A window has at least one target, so the last token of the text begins none.
int64_t BatchMaker::HeldOutWindows() const {
  const int64_t targets = std::max<int64_t>(0, dataset_->held_out().size() - 1);
  return (targets + shape_.sequence - 1) / shape_.sequence;
}

int64_t BatchMaker::EvaluationBatches(int64_t batches_max) const {
  const int64_t all = (HeldOutWindows() + shape_.rows - 1) / shape_.rows;
  return batches_max > 0 ? std::min(all, batches_max) : all;
}

void BatchMaker::Evaluation(int64_t index, int64_t batches_max, Batch* batch) const {
  const int64_t all = EvaluationBatches(0), used = EvaluationBatches(batches_max);
  const int64_t first = index * all / used * shape_.rows;
  for (int64_t row = 0; row < shape_.rows; ++row) {
    const int64_t window = first + row;
    if (window < HeldOutWindows()) {
      FillRow(dataset_->held_out(), window * shape_.sequence, row, window, batch);
    } else {
      PadRow(row, batch);
    }
  }
  Finish(/*step=*/0, /*training=*/false, batch);
}

void BatchMaker::PadRow(int64_t row, Batch* batch) const {
  const int64_t begin = row * shape_.sequence;
  for (int64_t t = 0; t < shape_.sequence; ++t) {
    batch->tokens[begin + t] = 0;
    batch->targets[begin + t] = kIgnored;
    batch->positions[begin + t] = static_cast<int32_t>(t);
    batch->first_key[begin + t] = 0;
  }
  batch->samples[row] = 0;
}

void BatchMaker::FillRow(const TokenStream& stream, int64_t offset, int64_t row, int64_t sample, Batch* batch) const {
  PadRow(row, batch);
  const int64_t sequence = shape_.sequence;
  const int64_t count = std::min(sequence + 1, stream.size() - offset);
  auto tokens = absl::MakeSpan(batch->row_tokens).subspan(0, count);
  auto pieces = absl::MakeSpan(batch->row_pieces).subspan(0, count);
  stream.Read(offset, tokens, pieces);
  const int64_t begin = row * sequence;
  int64_t document = 0;  // position in the row at which the current one begins
  for (int64_t t = 0; t < std::min(sequence, count); ++t) {
    const bool last = t + 1 == count;
    const bool ends = last || pieces[t + 1] != pieces[t] || (rules_.end_token && tokens[t] == *rules_.end_token);
    batch->tokens[begin + t] = tokens[t];
    const bool counts = !last && !(rules_.separate_documents && ends) &&
                        !(rules_.ignore_index && tokens[t + 1] == *rules_.ignore_index);
    batch->targets[begin + t] = counts ? tokens[t + 1] : kIgnored;
    if (!rules_.separate_documents) continue;
    batch->positions[begin + t] = static_cast<int32_t>(t - document);
    batch->first_key[begin + t] = static_cast<int32_t>(document);
    if (ends) document = t + 1;
  }
  batch->samples[row] = static_cast<int32_t>(sample);
}

// Group g of G holds micro-batches gM/G ... (g+1)M/G - 1. The loss is the mean over the step's valid targets, scaled here only.
void BatchMaker::Finish(int64_t step, bool training, Batch* batch) const {
  batch->valid_targets = std::count_if(batch->targets.begin(), batch->targets.end(), [](int32_t t) { return t >= 0; });
  const int64_t rows = shape_.rows / shape_.micro_batches, tokens = rows * shape_.sequence;
  const int64_t per_group = shape_.micro_batches / shape_.gradient_groups;
  for (int64_t i = 0; i < shape_.micro_batches; ++i) {
    auto part = [&](const std::vector<int32_t>& all, int64_t size) { return absl::MakeConstSpan(all).subspan(i * size, size); };
    MicroBatchInfo& info = batch->micro_batches[i];
    info = {};
    info.index = MicroBatch(i);
    info.rows = rows;
    info.sequence = shape_.sequence;
    info.tokens = part(batch->tokens, tokens);
    info.targets = part(batch->targets, tokens);
    info.positions = part(batch->positions, tokens);
    if (rules_.separate_documents) info.first_key = part(batch->first_key, tokens);
    info.samples = part(batch->samples, rows);
    info.step = step;
    info.loss_scale = batch->valid_targets > 0 ? 1.0f / static_cast<float>(batch->valid_targets) : 0.0f;
    info.gradient_group = static_cast<int>(i / per_group);
    info.training = training;
  }
}

}  // namespace sluice
