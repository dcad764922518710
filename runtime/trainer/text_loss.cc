#include "runtime/trainer/text_loss.h"

#include <algorithm>

#include "base/status.h"
#include "runtime/data/batch.h"

namespace sluice {
namespace {

constexpr int32_t kIgnored = -1;

// The part of a document that a row has.
struct Window {
  size_t document;
  int64_t begin;
};

std::vector<Window> WindowsOf(absl::Span<const std::vector<int32_t>> documents, int64_t sequence) {
  std::vector<Window> windows;
  for (size_t document = 0; document < documents.size(); ++document) {
    const auto size = static_cast<int64_t>(documents[document].size());
    for (int64_t begin = 0; begin + 1 < size; begin += sequence) windows.push_back({document, begin});
  }
  return windows;
}

// Fills a row; what lies behind its document's end has no targets.
void FillRow(absl::Span<const int32_t> text, int64_t row, Batch* batch) {
  const int64_t sequence = batch->shape.sequence, count = static_cast<int64_t>(text.size());
  for (int64_t t = 0, at = row * sequence; t < sequence; ++t, ++at) {
    batch->tokens[at] = t < count ? text[t] : 0;
    batch->targets[at] = t + 1 < count ? text[t + 1] : kIgnored;
    batch->positions[at] = static_cast<int32_t>(t);
  }
  batch->samples[row] = 0;
}

void SetMicroBatches(Batch* batch) {
  const BatchShape& shape = batch->shape;
  const int64_t rows = shape.rows / shape.micro_batches, tokens = rows * shape.sequence;
  for (int64_t i = 0; i < shape.micro_batches; ++i) {
    const auto part = [&](const std::vector<int32_t>& all, int64_t size) {
      return absl::MakeConstSpan(all).subspan(i * size, size);
    };
    batch->micro_batches[i] = {.index = MicroBatch(i),
                               .rows = rows,
                               .sequence = shape.sequence,
                               .tokens = part(batch->tokens, tokens),
                               .targets = part(batch->targets, tokens),
                               .positions = part(batch->positions, tokens),
                               .samples = part(batch->samples, rows),
                               .training = false};
  }
}

}  // namespace

absl::StatusOr<TextLoss> EvaluateTexts(Pipeline* pipeline, const TrainingConfig& training,
                                       absl::Span<const std::vector<int32_t>> documents,
                                       const std::function<void(int64_t predicted)>& progress) {
  Batch batch(ShapeOf(training));
  SetMicroBatches(&batch);
  const std::vector<Window> windows = WindowsOf(documents, training.sequence);
  TextLoss loss;
  for (size_t next = 0; next < windows.size();) {
    for (int64_t row = 0; row < batch.shape.rows; ++row, ++next) {
      absl::Span<const int32_t> text;
      if (next < windows.size()) {
        text =
            absl::MakeConstSpan(documents[windows[next].document]).subspan(windows[next].begin, training.sequence + 1);
      }
      FillRow(text, row, &batch);
    }
    loss.predicted += std::count_if(batch.targets.begin(), batch.targets.end(), [](int32_t t) { return t >= 0; });
    ASSIGN_OR_RETURN(const std::vector<float> sums, pipeline->Evaluate(batch.micro_batches));
    for (const float sum : sums) loss.nats += sum;
    if (progress) progress(loss.predicted);
  }
  return loss;
}

}  // namespace sluice
