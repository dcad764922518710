// The operations that a device runs on a stream. Each call only issues work. Shapes: B rows of a micro-batch, T
// sequence, M = B*T, C channels, H heads, G key/value heads, D head size, F width of the MLP, V vocabulary, N x K a
// weight [outputs, inputs]. "compute" tensors are f32 or bf16, one type per call; parameters, their gradients and
// statistics are f32. Arithmetic accumulates in f32; a bf16 result is rounded once, at the end of an operation.
//
// Numbers: the split of the work depends on the shape only, never on the number of threads, so results are bit-equal
// for any team. Tensors of a call must not overlap unless its comment says so. An absent optional tensor is
// TensorView{}.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/device.h"
#include "kernels/rope_scaling.h"
#include "kernels/tensor.h"

namespace sluice {

// Whether a gradient is written (first micro-batch of a group) or added to.
enum class Accumulate : uint8_t { kOverwrite, kAdd };
enum class NormKind : uint8_t { kLayerNorm, kRmsNorm };
enum class Direction : uint8_t { kForward, kInverse };

// Which stream of counter-based random numbers (base/philox.h) an operation draws from.
struct RandomKey {
  uint64_t seed = 0;
  uint64_t name = 0;  // hash of the layer's (or parameter's) global name and the purpose
  uint32_t step = 0;
};

// What a weight is packed for.
enum class PackedFor : uint8_t {
  kTraining,   // forward and input gradient
  kInference,  // forward alone
};
// y[M,N] = x[M,K] . weight^T (+ bias) (+ add). `packed` was made by PackLinear for the same shape.
struct LinearShape {
  int64_t n = 0;
  int64_t k = 0;
  DType compute = DType::kF32;
  PackedFor packed_for = PackedFor::kTraining;
};
struct LinearForwardArgs {
  LinearShape shape;
  TensorView x;       // [M, K] compute
  TensorView packed;  // bytes
  TensorView bias;    // [N] f32, optional
  TensorView add;     // [M, N] compute, optional; may be y itself
  TensorView y;       // [M, N] compute, or f32
};
// dx = dy . weight
struct LinearInputGradientArgs {
  LinearShape shape;
  TensorView dy;      // [M, N] compute
  TensorView packed;  // bytes
  TensorView dx;      // [M, K] compute
};
// dweight (+)= dy^T . x, dbias (+)= column sums of dy
struct LinearWeightGradientArgs {
  LinearShape shape;
  TensorView x;        // [M, K] compute
  TensorView dy;       // [M, N] compute
  TensorView dweight;  // [N, K] f32
  TensorView dbias;    // [N] f32, optional
  Accumulate accumulate = Accumulate::kAdd;
};

struct NormForwardArgs {
  NormKind kind = NormKind::kLayerNorm;
  float epsilon = 1e-5f;
  TensorView x;      // [M, C] compute
  TensorView gamma;  // [C] f32
  TensorView beta;   // [C] f32; absent for RMSNorm
  TensorView y;      // [M, C] compute
  TensorView mean;   // [M] f32; absent for RMSNorm
  TensorView rstd;   // [M] f32
};
struct NormInputGradientArgs {
  NormKind kind = NormKind::kLayerNorm;
  TensorView dy;     // [M, C] compute
  TensorView x;      // [M, C] compute
  TensorView gamma;  // [C] f32
  TensorView mean;   // [M] f32; absent for RMSNorm
  TensorView rstd;   // [M] f32
  TensorView add;    // [M, C] compute, optional: gradient arriving beside the norm, added to the result; may be dx
  TensorView dx;     // [M, C] compute
};
struct NormWeightGradientArgs {
  NormKind kind = NormKind::kLayerNorm;
  TensorView dy;      // [M, C] compute
  TensorView x;       // [M, C] compute
  TensorView mean;    // [M] f32; absent for RMSNorm
  TensorView rstd;    // [M] f32
  TensorView dgamma;  // [C] f32
  TensorView dbeta;   // [C] f32; absent for RMSNorm
  Accumulate accumulate = Accumulate::kAdd;
};

// Causal self-attention. qkv[M, (H + 2G) * D] holds the H query heads, then the G key heads, then the G value heads of
// each token; query head h uses key head h / (H / G). Token t attends to the keys first_key[t] ... t of its row.
struct AttentionShape {
  int64_t rows = 0;      // B
  int64_t sequence = 0;  // T
  int64_t heads = 0;     // H
  int64_t kv_heads = 0;  // G, divides H
  int64_t head_size = 0;
  float scale = 1.0f;  // of the scores, usually 1/sqrt(D)
};
struct AttentionForwardArgs {
  AttentionShape shape;
  TensorView qkv;        // [M, (H + 2G) * D] compute
  TensorView first_key;  // [M] i32, position within the row; absent: 0
  TensorView y;          // [M, H * D] compute
  TensorView lse;        // [B, H, T] f32: log of the sum of exponentials of each query's scores
};
struct AttentionBackwardArgs {
  AttentionShape shape;
  TensorView qkv;
  TensorView first_key;
  TensorView y;
  TensorView lse;
  TensorView dy;    // [M, H * D] compute
  TensorView dqkv;  // [M, (H + 2G) * D] compute
};

// Attention of new tokens over those before them, whose keys and values a cache keeps from call to call: of `sequences`
// sequences, each of at most `context` tokens.
struct CacheShape {
  int64_t sequences = 0;
  int64_t context = 0;
  int64_t heads = 0;     // H
  int64_t kv_heads = 0;  // G, divides H
  int64_t head_size = 0;
  float scale = 1.0f;  // of the scores
  DType compute = DType::kF32;
};
// The keys and values of the M tokens go into the cache, at sequences[i] and positions[i]; then each attends to the
// keys 0 ... positions[i] of its sequence. The tokens of one sequence stand together, positions ascending by one. How a
// prompt is cut into calls changes no bit.
struct CachedAttentionArgs {
  CacheShape shape;
  TensorView qkv;        // [M, (H + 2G) * D] compute, as in AttentionForwardArgs
  TensorView sequences;  // [M] i32
  TensorView positions;  // [M] i32, below the context
  TensorView cache;      // KeyValueCacheBytes() bytes, in a layout of the device's
  TensorView y;          // [M, H * D] compute
};

// Rotates the query and key heads of qkv in place by position (rotate-half convention); kInverse undoes it and is its
// own gradient.
struct RopeArgs {
  AttentionShape shape;
  float theta = 10000.0f;
  RopeScaling scaling;
  Direction direction = Direction::kForward;
  TensorView qkv;        // [M, (H + 2G) * D] compute, in place
  TensorView positions;  // [M] i32
};

struct GeluForwardArgs {  // tanh form
  TensorView x;           // [M, F] compute
  TensorView y;
};
struct GeluBackwardArgs {
  TensorView x;
  TensorView dy;
  TensorView dx;  // may be dy
};
// y = silu(gate) * up; gate_up[M, 2F] holds the F gates, then the F ups of each token.
struct SwigluForwardArgs {
  TensorView gate_up;  // [M, 2F] compute
  TensorView y;        // [M, F] compute
};
struct SwigluBackwardArgs {
  TensorView gate_up;
  TensorView dy;        // [M, F] compute
  TensorView dgate_up;  // [M, 2F] compute
};

// y = add + x * mask / (1 - rate). The mask of element e of sample s is drawn from (key, samples[s], e), e counted in
// the unsplit [T, C] of the sample; it is the same in the backward pass, which calls this on the gradient.
struct DropoutArgs {
  RandomKey key;
  float rate = 0.0f;
  TensorView samples;       // [B] i32: global sample indices
  int64_t sequence = 0;     // T, of a call on a part of the tokens; 0: x has all of them, and T is M / B
  int64_t first_token = 0;  // of the B*T, the one that x begins with
  TensorView x;             // [M, C] compute; rows of one sample are adjacent
  TensorView add;           // [M, C] compute, optional; may be y
  TensorView y;             // [M, C] compute; may be x
};

struct AddArgs {  // y = a + b; y may be a or b
  TensorView a;
  TensorView b;
  TensorView y;
};

// Which rows of a table, or columns of logits, of V in all a call works on; V = 0: on all.
struct RowRange {
  int64_t first = 0;
  int64_t vocabulary = 0;
};

struct EmbeddingForwardArgs {
  TensorView tokens;          // [M] i32, each below V
  TensorView positions;       // [M] i32, each below P
  TensorView table;           // [V, C] f32
  TensorView position_table;  // [P, C] f32, optional
  RowRange rows;              // that `table` has, where others have the rest: other tokens become rows of zeros
  TensorView y;               // [M, C] compute
};
// dtable[indices[i]] (+)= dy[i], in the order of i. Overwrite zeroes the rows that no index names.
struct EmbeddingGradientArgs {
  TensorView indices;  // [M] i32
  TensorView dy;       // [M, C] compute
  TensorView dtable;   // [V, C] f32
  RowRange rows;       // that `dtable` has; indices of others are passed over
  Accumulate accumulate = Accumulate::kAdd;
};

// Per token: loss = log of the sum of exponentials of its logits - the target's logit; dlogits = (softmax(logits) -
// onehot(target)) * scale. All are 0 where the target is negative (ignored). Without dlogits the losses are the same
// bits.
struct CrossEntropyArgs {
  TensorView logits;      // [M, V] f32
  RowRange columns;       // that `logits` has, of logits split over shards; then with ...
  TensorView statistics;  // ... [S, M, 3] f32: what LogitStatistics() made of each shard's, in order; else absent
  TensorView targets;     // [M] i32
  TensorView losses;      // [M] f32
  TensorView total;       // [1] f32: (+)= their sum, in order
  Accumulate accumulate = Accumulate::kOverwrite;  // of `total`
  float scale = 1.0f;
  TensorView dlogits;  // [M, V] compute, optional; may be logits
};

// What the loss needs to know of a part of the logits: for each token the largest of them, the sum of the exponentials
// of their differences from it, and the target's logit, or 0 where it belongs to another part.
struct LogitStatisticsArgs {
  TensorView logits;   // [M, columns of this part] f32
  TensorView targets;  // [M] i32
  RowRange columns;
  TensorView statistics;  // [M, 3] f32
};

// How the next token of a sequence is drawn: repetition penalty, temperature, the top_k likeliest, the fewest of those
// that have top_p of the probability, in that order.
struct SamplingRules {
  float temperature = 0;         // 0: the likeliest token, the lowest of equals
  float top_p = 1;               // 1: all
  float repetition_penalty = 1;  // of tokens the sequence has: positive logits are divided, others multiplied; 1: none
  int32_t top_k = 0;             // 0: all
  uint64_t seed = 0;
  int64_t sample = 0;  // number of the sequence among all; with seed and position it keys the random number
};
inline constexpr int64_t kSamplingRulesWords = sizeof(SamplingRules) / sizeof(int32_t);
inline int64_t SeenWords(int64_t vocabulary) { return (vocabulary + 31) / 32; }

// Draws a token for each of R sequences; marks it as one that the sequence has.
struct SampleTokensArgs {
  TensorView logits;     // [R, V] f32, overwritten
  TensorView sequences;  // [R] i32, no two alike
  TensorView positions;  // [R] i32: the place in its sequence that the token drawn will have
  TensorView rules;      // [sequences, kSamplingRulesWords] i32: a SamplingRules each
  TensorView seen;    // [sequences, SeenWords(V)] i32: bit v % 32 of word v / 32 is set where the sequence has token v
  TensorView tokens;  // [R] i32
};

// Fixed blocks of elements that a gradient's squared norm is summed in.
inline constexpr int64_t kNormBlock = 16384;
inline int64_t NormBlocks(int64_t elements) { return (elements + kNormBlock - 1) / kNormBlock; }

// What the optimizer does with this step's gradients, decided on the device from the gathered partials.
struct StepControl {
  float norm = 0;   // global gradient norm
  float scale = 1;  // what gradients are multiplied by: min(1, max_norm / norm)
  float skip = 0;   // 1: the norm is not finite; the optimizer leaves everything as it is
  float reserved = 0;
};

struct AdamWArgs {
  TensorView parameter;  // [n] f32, in place
  TensorView gradient;   // [n] f32
  TensorView m;          // [n] f32, in place
  TensorView v;          // [n] f32, in place
  TensorView control;    // [4] f32: a StepControl
  float learning_rate = 0;
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float epsilon = 1e-8f;
  float weight_decay = 0;
  int64_t step = 1;  // counts updates from 1 (bias correction)
};

// Independent draws from N(0, deviation^2), element e of the unsplit tensor from (key, e).
struct InitNormalArgs {
  RandomKey key;
  float deviation = 0;
  TensorView target;   // [rows, columns] f32: a block of the unsplit tensor ...
  int64_t first = 0;   // ... that begins with this element of it ...
  int64_t stride = 0;  // ... and has rows so many elements apart; 0: it has whole rows
};

class Operations {
 public:
  virtual ~Operations() = default;

  // A weight is packed once per optimizer step, for forward and input gradient, in the layout this device multiplies
  // fastest in. `packed` is a view of PackedLinearBytes() bytes (dtype kI32 or any; only data and size count).
  virtual int64_t PackedLinearBytes(const LinearShape& shape) const = 0;
  virtual void PackLinear(Stream& stream, const LinearShape& shape, TensorView weight, TensorView packed) const = 0;
  virtual void LinearForward(Stream& stream, const LinearForwardArgs& args) const = 0;
  virtual void LinearInputGradient(Stream& stream, const LinearInputGradientArgs& args) const = 0;
  virtual void LinearWeightGradient(Stream& stream, const LinearWeightGradientArgs& args) const = 0;

  virtual void NormForward(Stream& stream, const NormForwardArgs& args) const = 0;
  virtual void NormInputGradient(Stream& stream, const NormInputGradientArgs& args) const = 0;
  virtual void NormWeightGradient(Stream& stream, const NormWeightGradientArgs& args) const = 0;

  virtual void AttentionForward(Stream& stream, const AttentionForwardArgs& args) const = 0;
  virtual void AttentionBackward(Stream& stream, const AttentionBackwardArgs& args) const = 0;
  // Of CachedAttentionArgs::cache. A sequence's cache needs no clearing before its first token.
  virtual int64_t KeyValueCacheBytes(const CacheShape& shape) const = 0;
  virtual void CachedAttention(Stream& stream, const CachedAttentionArgs& args) const = 0;
  virtual void Rope(Stream& stream, const RopeArgs& args) const = 0;

  virtual void GeluForward(Stream& stream, const GeluForwardArgs& args) const = 0;
  virtual void GeluBackward(Stream& stream, const GeluBackwardArgs& args) const = 0;
  virtual void SwigluForward(Stream& stream, const SwigluForwardArgs& args) const = 0;
  virtual void SwigluBackward(Stream& stream, const SwigluBackwardArgs& args) const = 0;
  virtual void Dropout(Stream& stream, const DropoutArgs& args) const = 0;
  virtual void Add(Stream& stream, const AddArgs& args) const = 0;

  virtual void EmbeddingForward(Stream& stream, const EmbeddingForwardArgs& args) const = 0;
  virtual void EmbeddingGradient(Stream& stream, const EmbeddingGradientArgs& args) const = 0;
  virtual void CrossEntropy(Stream& stream, const CrossEntropyArgs& args) const = 0;
  virtual void LogitStatistics(Stream& stream, const LogitStatisticsArgs& args) const = 0;
  virtual void SampleTokens(Stream& stream, const SampleTokensArgs& args) const = 0;

  // sum = parts[0] + parts[1] + ... element by element in that order, all f32 or all bf16; sum may be parts[0]. At most
  // 64 parts.
  virtual void SumInOrder(Stream& stream, absl::Span<const TensorView> parts, TensorView sum) const = 0;
  // partials[b] = sum of squares of block b of kNormBlock elements of gradient, f32.
  virtual void SquaredNorm(Stream& stream, TensorView gradient, TensorView partials) const = 0;
  // Adds all partials in order and writes the StepControl; max_norm <= 0 does not clip.
  virtual void DecideStep(Stream& stream, TensorView partials, float max_norm, TensorView control) const = 0;
  // Turns a decision about a part of the gradients into a guess about all: where the part would be scaled down, skip is
  // set, since the whole will be scaled by another number. `guess` is a StepControl, and not `control`.
  virtual void GuessStep(Stream& stream, TensorView control, TensorView guess) const = 0;
  virtual void AdamW(Stream& stream, const AdamWArgs& args) const = 0;

  virtual void Fill(Stream& stream, TensorView target, float value) const = 0;
  virtual void Copy(Stream& stream, TensorView source, TensorView target) const = 0;  // same type and size
  // hash [2] i32: 64 bits of all bits of `source`, of any type, the same for the same bits on devices of one kind.
  virtual void Hash(Stream& stream, TensorView source, TensorView hash) const = 0;
  virtual void InitNormal(Stream& stream, const InitNormalArgs& args) const = 0;
};

}  // namespace sluice
