// What each operation of operations.h demands of its arguments' shapes and types, for every device: a broken demand is
// a broken invariant of the caller. What one device demands besides (alignment, limits, values) it checks itself.
#pragma once

#include "absl/types/span.h"
#include "kernels/operations.h"

namespace sluice {

// Of packed weights only the device knows the size.
void CheckArguments(const LinearForwardArgs& args);
void CheckArguments(const LinearInputGradientArgs& args);
void CheckArguments(const LinearWeightGradientArgs& args);
void CheckArguments(const NormForwardArgs& args);
void CheckArguments(const NormInputGradientArgs& args);
void CheckArguments(const NormWeightGradientArgs& args);
void CheckArguments(const AttentionForwardArgs& args);
void CheckArguments(const AttentionBackwardArgs& args);
void CheckArguments(const CachedAttentionArgs& args);
void CheckArguments(const RopeArgs& args);
void CheckArguments(const GeluForwardArgs& args);
void CheckArguments(const GeluBackwardArgs& args);
void CheckArguments(const SwigluForwardArgs& args);
void CheckArguments(const SwigluBackwardArgs& args);
void CheckArguments(const DropoutArgs& args);
void CheckArguments(const AddArgs& args);
void CheckArguments(const EmbeddingForwardArgs& args);
void CheckArguments(const EmbeddingGradientArgs& args);
void CheckArguments(const CrossEntropyArgs& args);
void CheckArguments(const LogitStatisticsArgs& args);
void CheckArguments(const SampleTokensArgs& args);
void CheckArguments(const AdamWArgs& args);
void CheckArguments(const InitNormalArgs& args);
void CheckSumInOrder(absl::Span<const TensorView> parts, const TensorView& sum);
void CheckSquaredNorm(const TensorView& gradient, const TensorView& partials);
void CheckDecideStep(const TensorView& partials, const TensorView& control);
void CheckGuessStep(const TensorView& control, const TensorView& guess);
void CheckCopy(const TensorView& source, const TensorView& target);
void CheckHash(const TensorView& hash);

// Tokens of each sample: given, or all of x shared out.
inline int64_t SequenceOf(const DropoutArgs& args) {
  return args.sequence > 0 ? args.sequence : args.x.rows() / args.samples.elements();
}

}  // namespace sluice
