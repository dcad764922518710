#include "stages/tensor_traffic.h"

#include <algorithm>

#include "stages/parameters.h"

namespace sluice {
namespace {

// Makes the collectives of a tensor of all of a micro-batch's tokens.
class Exchanges {
 public:
  Exchanges(int64_t tokens, int64_t row_bytes, const TensorParallel& tensor)
      : tokens_(tokens),
        mine_(ShareOf(tokens, tensor.size, tensor.index).count),
        row_bytes_(row_bytes),
        others_(tensor.size - 1) {}

  Traffic ReduceScatter() const { return {1, others_ * mine_ * row_bytes_}; }
  Traffic Gather() const { return {1, (tokens_ - mine_) * row_bytes_}; }
  Traffic Reduce(bool to_slices) const { return to_slices ? ReduceScatter() : ReduceScatter() + Gather(); }
  // Three numbers of each token, chunk by chunk.
  Traffic Statistics() const { return {(tokens_ + kHeadRows - 1) / kHeadRows, others_ * tokens_ * 3 * 4}; }

 private:
  int64_t tokens_, mine_, row_bytes_, others_;
};

}  // namespace

LayerTraffic TensorTraffic(const Node& node, int64_t rows, int64_t sequence, Precision precision,
                           const TensorParallel& tensor) {
  if (tensor.size == 1) return {};
  const bool slices = tensor.sequence_parallel;
  const Exchanges all(rows * sequence, node.channels * (precision == Precision::kF32 ? 4 : 2), tensor);
  const Traffic gather = slices ? all.Gather() : Traffic{};
  switch (node.kind) {
    case LayerKind::kEmbedding:
      return {.forward = all.Reduce(slices), .input_gradient = gather};
    case LayerKind::kAttention:
    case LayerKind::kMlp:
      return {.forward = gather + all.Reduce(slices),
              .input_gradient = gather + all.Reduce(slices),
              .recompute_selective = gather,
              .recompute_full = gather};
    case LayerKind::kHead:
      return {.input_gradient = gather + all.Statistics() + all.Reduce(slices)};
    case LayerKind::kNorm:
    case LayerKind::kLinear:
    case LayerKind::kActivation:
      return {};
  }
  return {};
}

Traffic TensorStepTraffic(const LayerGraph& graph, size_t begin, size_t end, const TensorParallel& tensor) {
  if (tensor.size == 1) return {};
  Traffic traffic{.collectives = 1};  // the norm's partials, whose bytes are too few to count
  for (size_t node = begin; node < end; ++node) {
    for (const ParameterSpec& spec : Parameters(graph, node, tensor)) {
      for (const Slice& slice : spec.slices) {
        if (!slice.partial_gradient) continue;
        traffic +=
            {(slice.elements() + kSharedElements - 1) / kSharedElements, (tensor.size - 1) * slice.elements() * 4};
      }
    }
  }
  return traffic;
}

}  // namespace sluice
