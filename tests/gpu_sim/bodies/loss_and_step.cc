#include <limits>

#include "kernels/cpu/cross_entropy.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/hash.h"
#include "kernels/cpu/optimizer.h"
#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/hash.h"
#include "kernels/cuda/optimizer.h"
#include "kernels/hash_chains.h"
#include "tests/gpu_sim/bodies/body.h"

namespace sluice::cuda {
namespace {

constexpr int64_t kControlElements = sizeof(StepControl) / sizeof(float);

void EmbeddingForwardBody(const EmbeddingForwardParams& p) {
  cpu::EmbeddingForward(OneThread(),
                        {.tokens = Vector(p.tokens, DType::kI32, p.rows),
                         .positions = Vector(p.positions, DType::kI32, p.rows),
                         .table = Matrix(p.table, DType::kF32, p.table_rows, p.columns),
                         .position_table = Matrix(p.position_table, DType::kF32, p.position_rows, p.columns),
                         .rows = {.first = p.first_row, .vocabulary = p.vocabulary},
                         .y = Matrix(p.y, p.dtype, p.rows, p.columns)});
}

void EmbeddingGradientBody(const EmbeddingGradientParams& p) {
  cpu::EmbeddingGradient(OneThread(),
                         {.indices = Vector(p.indices, DType::kI32, p.indices_count),
                          .dy = Matrix(p.dy, p.dtype, p.indices_count, p.columns),
                          .dtable = Matrix(p.dtable, DType::kF32, p.table_rows, p.columns),
                          .rows = {.first = p.first_row, .vocabulary = std::numeric_limits<int32_t>::max()},
                          .accumulate = Accumulate::kAdd});
}

void CrossEntropyBody(const CrossEntropyParams& p) {
  float total = 0;  // SumLosses adds them up
  TensorView statistics;
  if (p.statistics != nullptr) {
    statistics = {Vector(p.statistics, DType::kF32, 1).data, DType::kF32, {p.parts, p.rows, 3}};
  }
  cpu::CrossEntropy(OneThread(), {.logits = Matrix(p.logits, DType::kF32, p.rows, p.columns),
                                  .columns = {.first = p.first_column, .vocabulary = p.vocabulary},
                                  .statistics = statistics,
                                  .targets = Vector(p.targets, DType::kI32, p.rows),
                                  .losses = Vector(p.losses, DType::kF32, p.rows),
                                  .total = Vector(&total, DType::kF32, 1),
                                  .scale = p.scale,
                                  .dlogits = Matrix(p.dlogits, p.dtype, p.rows, p.columns)});
}

void SumLossesBody(const SumLossesParams& p) {
  double sum = p.accumulate == Accumulate::kAdd ? *p.total : 0;
  for (int64_t row = 0; row < p.rows; ++row) sum += p.losses[row];
  *p.total = static_cast<float>(sum);
}

void LogitStatisticsBody(const LogitStatisticsParams& p) {
  cpu::LogitStatistics(OneThread(),
                       {.logits = Matrix(p.logits, DType::kF32, p.rows, p.columns),
                        .targets = Vector(p.targets, DType::kI32, p.rows),
                        .columns = {.first = p.first_column, .vocabulary = std::numeric_limits<int32_t>::max()},
                        .statistics = Matrix(p.statistics, DType::kF32, p.rows, 3)});
}

void SquaredNormBody(const SquaredNormParams& p) {
  cpu::SquaredNorm(OneThread(), Vector(p.gradient, DType::kF32, p.elements),
                   Vector(p.partials, DType::kF32, NormBlocks(p.elements)));
}

void DecideStepBody(const DecideStepParams& p) {
  cpu::DecideStep(OneThread(), Vector(p.partials, DType::kF32, p.count), p.max_norm,
                  Vector(p.control, DType::kF32, kControlElements));
}

void GuessStepBody(const GuessStepParams& p) {
  cpu::GuessStep(OneThread(), Vector(p.control, DType::kF32, kControlElements),
                 Vector(p.guess, DType::kF32, kControlElements));
}

void AdamWBody(const AdamWParams& p) {
  if (p.control->skip != 0) return;
  for (int64_t i = 0; i < p.elements; ++i) {
    UpdateAdamW(p.factors, p.gradient[i] * p.control->scale, p.parameter[i], p.m[i], p.v[i]);
  }
}

void HashBlocksBody(const HashBlocksParams& p) {
  constexpr int64_t kBlocks = kHashBlocksOfThreads;
  for (int64_t block = 0; block * kHashBlockBytes < p.bytes; ++block) {
    if (block % kBlocks == 0) p.partials[block / kBlocks] = 0;
    const int64_t begin = block * kHashBlockBytes, size = std::min(kHashBlockBytes, p.bytes - begin);
    p.partials[block / kBlocks] += cpu::HashBlock(p.source + begin, size, static_cast<uint64_t>(block));
  }
}

void SumHashesBody(const SumHashesParams& p) {
  uint64_t sum = HashOfSize(p.source_bytes);
  for (int64_t i = 0; i < p.count; ++i) sum += p.partials[i];
  p.hash[0] = static_cast<uint32_t>(sum);
  p.hash[1] = static_cast<uint32_t>(sum >> 32);
}

[[maybe_unused]] const bool registered[] = {
    Register<EmbeddingForwardParams, EmbeddingForwardBody>("EmbeddingForward"),
    Register<EmbeddingGradientParams, EmbeddingGradientBody>("EmbeddingGradient"),
    Register<CrossEntropyParams, CrossEntropyBody>("CrossEntropy"),
    Register<SumLossesParams, SumLossesBody>("SumLosses"),
    Register<LogitStatisticsParams, LogitStatisticsBody>("LogitStatistics"),
    Register<SquaredNormParams, SquaredNormBody>("SquaredNorm"),
    Register<DecideStepParams, DecideStepBody>("DecideStep"),
    Register<GuessStepParams, GuessStepBody>("GuessStep"),
    Register<AdamWParams, AdamWBody>("AdamW"),
    Register<HashBlocksParams, HashBlocksBody>("HashBlocks"),
    Register<SumHashesParams, SumHashesBody>("SumHashes"),
};

}  // namespace
}  // namespace sluice::cuda
