#include "kernels/operation_check.h"

#include "base/check.h"
#include "kernels/tensor_check.h"

namespace sluice {
namespace {

constexpr size_t kPartsMax = 64;         // of SumInOrder
constexpr int64_t kLogitStatistics = 3;  // of a token, in one part of the logits
constexpr int64_t kControlElements = sizeof(StepControl) / sizeof(float);

// LayerNorm has this tensor, RMSNorm doesn't.
void CheckLayerNormOnly(const char* name, NormKind kind, const TensorView& view, int64_t elements) {
  if (kind == NormKind::kLayerNorm) {
    CheckVector(name, view, elements, DType::kF32);
  } else {
    CHECK(!view) << name << " in RMSNorm";
  }
}

void CheckHeads(const AttentionShape& shape, const TensorView& qkv) {
  CheckCompute("qkv", qkv);
  CheckMatrix("qkv", qkv, shape.rows * shape.sequence, (shape.heads + 2 * shape.kv_heads) * shape.head_size, qkv.dtype);
}

void CheckAttention(const AttentionShape& shape, const TensorView& qkv, const TensorView& first_key,
                    const TensorView& y, const TensorView& lse) {
  CHECK(shape.rows > 0 && shape.sequence > 0 && shape.kv_heads > 0 && shape.head_size > 0);
  CHECK_EQ(shape.heads % shape.kv_heads, 0) << "heads " << shape.heads << ", key heads " << shape.kv_heads;
  CheckHeads(shape, qkv);
  if (first_key) CheckVector("first_key", first_key, shape.rows * shape.sequence, DType::kI32);
  CheckMatrix("y", y, shape.rows * shape.sequence, shape.heads * shape.head_size, qkv.dtype);
  CheckVector("lse", lse, shape.rows * shape.heads * shape.sequence, DType::kF32);
}

void CheckLogits(const TensorView& logits, const TensorView& targets) {
  CheckMatrix("logits", logits, logits.rows(), logits.columns(), DType::kF32);
  CheckVector("targets", targets, logits.rows(), DType::kI32);
}

}  // namespace

void CheckArguments(const LinearForwardArgs& args) {
  const LinearShape& shape = args.shape;
  const int64_t rows = args.x.rows();
  CheckMatrix("x", args.x, rows, shape.k, shape.compute);
  if (args.bias) CheckVector("bias", args.bias, shape.n, DType::kF32);
  if (args.add) CheckMatrix("add", args.add, rows, shape.n, shape.compute);
  CheckMatrix("y", args.y, rows, shape.n, args.y.dtype == DType::kF32 ? DType::kF32 : shape.compute);
}

void CheckArguments(const LinearInputGradientArgs& args) {
  const LinearShape& shape = args.shape;
  CheckMatrix("dy", args.dy, args.dy.rows(), shape.n, shape.compute);
  CheckMatrix("dx", args.dx, args.dy.rows(), shape.k, shape.compute);
}

void CheckArguments(const LinearWeightGradientArgs& args) {
  const LinearShape& shape = args.shape;
  const int64_t rows = args.x.rows();
  CheckMatrix("x", args.x, rows, shape.k, shape.compute);
  CheckMatrix("dy", args.dy, rows, shape.n, shape.compute);
  CheckMatrix("dweight", args.dweight, shape.n, shape.k, DType::kF32);
  if (args.dbias) CheckVector("dbias", args.dbias, shape.n, DType::kF32);
}

void CheckArguments(const NormForwardArgs& args) {
  const int64_t rows = args.x.rows(), columns = args.x.columns();
  CheckCompute("x", args.x);
  CheckVector("gamma", args.gamma, columns, DType::kF32);
  CheckLayerNormOnly("beta", args.kind, args.beta, columns);
  CheckMatrix("y", args.y, rows, columns, args.x.dtype);
  CheckLayerNormOnly("mean", args.kind, args.mean, rows);
  CheckVector("rstd", args.rstd, rows, DType::kF32);
}

void CheckArguments(const NormInputGradientArgs& args) {
  const int64_t rows = args.x.rows(), columns = args.x.columns();
  CheckCompute("x", args.x);
  CheckMatrix("dy", args.dy, rows, columns, args.x.dtype);
  CheckVector("gamma", args.gamma, columns, DType::kF32);
  CheckLayerNormOnly("mean", args.kind, args.mean, rows);
  CheckVector("rstd", args.rstd, rows, DType::kF32);
  if (args.add) CheckMatrix("add", args.add, rows, columns, args.x.dtype);
  CheckMatrix("dx", args.dx, rows, columns, args.x.dtype);
}

void CheckArguments(const NormWeightGradientArgs& args) {
  const int64_t rows = args.x.rows(), columns = args.x.columns();
  CheckCompute("x", args.x);
  CheckMatrix("dy", args.dy, rows, columns, args.x.dtype);
  CheckLayerNormOnly("mean", args.kind, args.mean, rows);
  CheckVector("rstd", args.rstd, rows, DType::kF32);
  CheckVector("dgamma", args.dgamma, columns, DType::kF32);
  CheckLayerNormOnly("dbeta", args.kind, args.dbeta, columns);
}

void CheckArguments(const AttentionForwardArgs& args) {
  CheckAttention(args.shape, args.qkv, args.first_key, args.y, args.lse);
}

void CheckArguments(const AttentionBackwardArgs& args) {
  CheckAttention(args.shape, args.qkv, args.first_key, args.y, args.lse);
  CheckMatrix("dy", args.dy, args.y.rows(), args.y.columns(), args.qkv.dtype);
  CheckMatrix("dqkv", args.dqkv, args.qkv.rows(), args.qkv.columns(), args.qkv.dtype);
}

// Of the cache only the device knows the size.
void CheckArguments(const CachedAttentionArgs& args) {
  const CacheShape& shape = args.shape;
  const int64_t tokens = args.qkv.rows();
  CHECK(shape.sequences > 0 && shape.context > 0 && shape.kv_heads > 0 && shape.head_size > 0);
  CHECK_EQ(shape.heads % shape.kv_heads, 0) << "heads " << shape.heads << ", key heads " << shape.kv_heads;
  CheckMatrix("qkv", args.qkv, tokens, (shape.heads + 2 * shape.kv_heads) * shape.head_size, shape.compute);
  CheckVector("sequences", args.sequences, tokens, DType::kI32);
  CheckVector("positions", args.positions, tokens, DType::kI32);
  CheckMatrix("y", args.y, tokens, shape.heads * shape.head_size, shape.compute);
}

void CheckArguments(const RopeArgs& args) {
  CHECK_EQ(args.shape.head_size % 2, 0) << "head size " << args.shape.head_size;
  CheckHeads(args.shape, args.qkv);
  CheckVector("positions", args.positions, args.shape.rows * args.shape.sequence, DType::kI32);
}

void CheckArguments(const GeluForwardArgs& args) {
  CheckCompute("x", args.x);
  CheckVector("y", args.y, args.x.elements(), args.x.dtype);
}

void CheckArguments(const GeluBackwardArgs& args) {
  CheckCompute("x", args.x);
  CheckVector("dy", args.dy, args.x.elements(), args.x.dtype);
  CheckVector("dx", args.dx, args.x.elements(), args.x.dtype);
}

void CheckArguments(const SwigluForwardArgs& args) {
  CheckCompute("y", args.y);
  CheckMatrix("gate_up", args.gate_up, args.y.rows(), 2 * args.y.columns(), args.y.dtype);
}

void CheckArguments(const SwigluBackwardArgs& args) {
  CheckCompute("dy", args.dy);
  CheckMatrix("gate_up", args.gate_up, args.dy.rows(), 2 * args.dy.columns(), args.dy.dtype);
  CheckMatrix("dgate_up", args.dgate_up, args.dy.rows(), 2 * args.dy.columns(), args.dy.dtype);
}

void CheckArguments(const DropoutArgs& args) {
  CHECK(args.rate >= 0.0f && args.rate < 1.0f) << "rate " << args.rate;
  CheckCompute("x", args.x);
  CheckVector("samples", args.samples, args.samples.elements(), DType::kI32);
  const int64_t samples = args.samples.elements(), rows = args.x.rows();
  CHECK(samples > 0 && (args.sequence > 0 || rows % samples == 0))
      << samples << " samples in " << args.x.shape.ToString();
  CHECK_LE(args.first_token + rows, samples * SequenceOf(args)) << "tokens beyond the last sample";
  if (args.add) CheckVector("add", args.add, args.x.elements(), args.x.dtype);
  CheckVector("y", args.y, args.x.elements(), args.x.dtype);
}

void CheckArguments(const AddArgs& args) {
  CheckCompute("a", args.a);
  CheckVector("b", args.b, args.a.elements(), args.a.dtype);
  CheckVector("y", args.y, args.a.elements(), args.a.dtype);
}

void CheckArguments(const EmbeddingForwardArgs& args) {
  const int64_t rows = args.y.rows(), columns = args.y.columns();
  CheckCompute("y", args.y);
  CheckVector("tokens", args.tokens, rows, DType::kI32);
  CheckMatrix("table", args.table, args.table.rows(), columns, DType::kF32);
  if (!args.position_table) return;
  CheckMatrix("position_table", args.position_table, args.position_table.rows(), columns, DType::kF32);
  CheckVector("positions", args.positions, rows, DType::kI32);
}

void CheckArguments(const EmbeddingGradientArgs& args) {
  CheckCompute("dy", args.dy);
  CheckVector("indices", args.indices, args.dy.rows(), DType::kI32);
  CheckMatrix("dtable", args.dtable, args.dtable.rows(), args.dy.columns(), DType::kF32);
}

void CheckArguments(const CrossEntropyArgs& args) {
  const int64_t rows = args.logits.rows();
  CheckLogits(args.logits, args.targets);
  CheckVector("losses", args.losses, rows, DType::kF32);
  CheckVector("total", args.total, 1, DType::kF32);
  if (args.statistics) {
    CheckVector("statistics", args.statistics, args.statistics.shape[0] * rows * kLogitStatistics, DType::kF32);
  }
  if (!args.dlogits) return;
  CheckCompute("dlogits", args.dlogits);
  CheckMatrix("dlogits", args.dlogits, rows, args.logits.columns(), args.dlogits.dtype);
}

void CheckArguments(const LogitStatisticsArgs& args) {
  CheckLogits(args.logits, args.targets);
  CheckMatrix("statistics", args.statistics, args.logits.rows(), kLogitStatistics, DType::kF32);
}

void CheckArguments(const SampleTokensArgs& args) {
  const int64_t rows = args.logits.rows(), vocabulary = args.logits.columns();
  CheckMatrix("logits", args.logits, rows, vocabulary, DType::kF32);
  CheckVector("sequences", args.sequences, rows, DType::kI32);
  CheckVector("positions", args.positions, rows, DType::kI32);
  CheckMatrix("rules", args.rules, args.rules.rows(), kSamplingRulesWords, DType::kI32);
  CheckMatrix("seen", args.seen, args.rules.rows(), SeenWords(vocabulary), DType::kI32);
  CheckVector("tokens", args.tokens, rows, DType::kI32);
}

void CheckArguments(const AdamWArgs& args) {
  const int64_t elements = args.parameter.elements();
  CheckVector("parameter", args.parameter, elements, DType::kF32);
  CheckVector("gradient", args.gradient, elements, DType::kF32);
  CheckVector("m", args.m, elements, DType::kF32);
  CheckVector("v", args.v, elements, DType::kF32);
  CheckVector("control", args.control, kControlElements, DType::kF32);
  CHECK_GE(args.step, 1);
}

void CheckArguments(const InitNormalArgs& args) {
  CheckVector("target", args.target, args.target.elements(), DType::kF32);
}

void CheckSumInOrder(absl::Span<const TensorView> parts, const TensorView& sum) {
  CHECK(!parts.empty() && parts.size() <= kPartsMax) << parts.size() << " parts";
  CheckCompute("sum", sum);
  for (const TensorView& part : parts) CheckVector("part", part, sum.elements(), sum.dtype);
}

void CheckSquaredNorm(const TensorView& gradient, const TensorView& partials) {
  CheckVector("gradient", gradient, gradient.elements(), DType::kF32);
  CheckVector("partials", partials, NormBlocks(gradient.elements()), DType::kF32);
}

void CheckDecideStep(const TensorView& partials, const TensorView& control) {
  CheckVector("partials", partials, partials.elements(), DType::kF32);
  CheckVector("control", control, kControlElements, DType::kF32);
}

void CheckGuessStep(const TensorView& control, const TensorView& guess) {
  CheckVector("control", control, kControlElements, DType::kF32);
  CheckVector("guess", guess, kControlElements, DType::kF32);
}

void CheckCopy(const TensorView& source, const TensorView& target) {
  CHECK(source) << "source is absent";
  CheckVector("target", target, source.elements(), source.dtype);
}

void CheckHash(const TensorView& hash) { CheckVector("hash", hash, 2, DType::kI32); }

}  // namespace sluice
