#include "kernels/cuda/operations.h"

#include "base/check.h"
#include "kernels/cuda/activation.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/dropout.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/hash.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/optimizer.h"
#include "kernels/cuda/random_init.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/stream.h"

namespace sluice::cuda {
namespace {

// `workspace_bytes`: what the operation may leave results in.
template <class Body>
void Issue(Stream& stream, const char* operation, int64_t workspace_bytes, const Body& body) {
  auto& gpu_stream = static_cast<CudaStream&>(stream);
  if (workspace_bytes > 0) gpu_stream.ReserveWorkspace(workspace_bytes);
  gpu_stream.Issue(operation, body);
}

// Without a workspace.
template <class Body>
void Issue(Stream& stream, const char* operation, const Body& body) {
  Issue(stream, operation, 0, [body](cudaStream_t s, const Workspace&) { return body(s); });
}

class CudaOperations final : public Operations {
 public:
  explicit CudaOperations(Matmul* matmul) : matmul_(matmul) {}

  int64_t PackedLinearBytes(const LinearShape& shape) const override { return cuda::PackedLinearBytes(shape); }
  void PackLinear(Stream& stream, const LinearShape& shape, TensorView weight, TensorView packed) const override {
    Issue(stream, "PackLinear", [=](cudaStream_t s) { return cuda::PackLinear(s, shape, weight, packed); });
  }
  void LinearForward(Stream& stream, const LinearForwardArgs& args) const override {
    Issue(stream, "LinearForward", LinearWorkspaceBytes(),
          [args, matmul = matmul_](cudaStream_t s, const Workspace& w) {
            return cuda::LinearForward(*matmul, s, args, w);
          });
  }
  void LinearInputGradient(Stream& stream, const LinearInputGradientArgs& args) const override {
    Issue(stream, "LinearInputGradient", LinearWorkspaceBytes(),
          [args, matmul = matmul_](cudaStream_t s, const Workspace& w) {
            return cuda::LinearInputGradient(*matmul, s, args, w);
          });
  }
  void LinearWeightGradient(Stream& stream, const LinearWeightGradientArgs& args) const override {
    Issue(stream, "LinearWeightGradient", LinearWorkspaceBytes(),
          [args, matmul = matmul_](cudaStream_t s, const Workspace& w) {
            return cuda::LinearWeightGradient(*matmul, s, args, w);
          });
  }

  void NormForward(Stream& stream, const NormForwardArgs& args) const override {
    Issue(stream, "NormForward", [args](cudaStream_t s) { return cuda::NormForward(s, args); });
  }
  void NormInputGradient(Stream& stream, const NormInputGradientArgs& args) const override {
    Issue(stream, "NormInputGradient", [args](cudaStream_t s) { return cuda::NormInputGradient(s, args); });
  }
  void NormWeightGradient(Stream& stream, const NormWeightGradientArgs& args) const override {
    Issue(stream, "NormWeightGradient", NormWeightGradientWorkspaceBytes(args.x.rows(), args.x.columns()),
          [args](cudaStream_t s, const Workspace& w) { return cuda::NormWeightGradient(s, args, w); });
  }

  void AttentionForward(Stream& stream, const AttentionForwardArgs& args) const override {
    Issue(stream, "AttentionForward", [args](cudaStream_t s) { return cuda::AttentionForward(s, args); });
  }
  void AttentionBackward(Stream& stream, const AttentionBackwardArgs& args) const override {
    Issue(stream, "AttentionBackward", AttentionBackwardWorkspaceBytes(args.shape, args.qkv.dtype),
          [args](cudaStream_t s, const Workspace& w) { return cuda::AttentionBackward(s, args, w); });
  }
  // Generation on GPUs is refused before anything is planned (runtime/generator); whoever comes here all the same gets
  // the error of an operation that isn't there.
  int64_t KeyValueCacheBytes(const CacheShape& shape) const override {
    return 2 * shape.sequences * shape.context * shape.kv_heads * shape.head_size * SizeOf(shape.compute);
  }
  void CachedAttention(Stream& stream, const CachedAttentionArgs&) const override {
    Issue(stream, "CachedAttention", [](cudaStream_t) { return cudaErrorNotSupported; });
  }
  void Rope(Stream& stream, const RopeArgs& args) const override {
    Issue(stream, "Rope", [args](cudaStream_t s) { return cuda::Rope(s, args); });
  }

  void GeluForward(Stream& stream, const GeluForwardArgs& args) const override {
    Issue(stream, "GeluForward", [args](cudaStream_t s) { return cuda::GeluForward(s, args); });
  }
  void GeluBackward(Stream& stream, const GeluBackwardArgs& args) const override {
    Issue(stream, "GeluBackward", [args](cudaStream_t s) { return cuda::GeluBackward(s, args); });
  }
  void SwigluForward(Stream& stream, const SwigluForwardArgs& args) const override {
    Issue(stream, "SwigluForward", [args](cudaStream_t s) { return cuda::SwigluForward(s, args); });
  }
  void SwigluBackward(Stream& stream, const SwigluBackwardArgs& args) const override {
    Issue(stream, "SwigluBackward", [args](cudaStream_t s) { return cuda::SwigluBackward(s, args); });
  }
  void Dropout(Stream& stream, const DropoutArgs& args) const override {
    Issue(stream, "Dropout", [args](cudaStream_t s) { return cuda::Dropout(s, args); });
  }
  void Add(Stream& stream, const AddArgs& args) const override {
    Issue(stream, "Add", [args](cudaStream_t s) { return cuda::Add(s, args); });
  }

  void EmbeddingForward(Stream& stream, const EmbeddingForwardArgs& args) const override {
    Issue(stream, "EmbeddingForward", [args](cudaStream_t s) { return cuda::EmbeddingForward(s, args); });
  }
  void EmbeddingGradient(Stream& stream, const EmbeddingGradientArgs& args) const override {
    Issue(stream, "EmbeddingGradient", [args](cudaStream_t s) { return cuda::EmbeddingGradient(s, args); });
  }
  void CrossEntropy(Stream& stream, const CrossEntropyArgs& args) const override {
    Issue(stream, "CrossEntropy", [args](cudaStream_t s) { return cuda::CrossEntropy(s, args); });
  }
  void SampleTokens(Stream& stream, const SampleTokensArgs&) const override {
    Issue(stream, "SampleTokens", [](cudaStream_t) { return cudaErrorNotSupported; });
  }
  void LogitStatistics(Stream& stream, const LogitStatisticsArgs& args) const override {
    Issue(stream, "LogitStatistics", [args](cudaStream_t s) { return cuda::LogitStatistics(s, args); });
  }

  // The views, all of one type and size, are made again from their addresses: a held command has no room for 64.
  void SumInOrder(Stream& stream, absl::Span<const TensorView> parts, TensorView sum) const override {
    CHECK(parts.size() <= kPartsMax) << parts.size() << " parts, at most " << kPartsMax;
    struct {
      std::byte* parts[kPartsMax];
      size_t count;
      TensorView sum;
    } args{.count = parts.size(), .sum = sum};
    for (size_t i = 0; i < parts.size(); ++i) {
      CHECK(parts[i].dtype == sum.dtype && parts[i].elements() == sum.elements()) << "part " << i << " is another one";
      args.parts[i] = parts[i].data;
    }
    Issue(stream, "SumInOrder", [args](cudaStream_t s) {
      TensorView views[kPartsMax];
      for (size_t i = 0; i < args.count; ++i) views[i] = {args.parts[i], args.sum.dtype, args.sum.shape};
      return cuda::SumInOrder(s, absl::MakeConstSpan(views, args.count), args.sum);
    });
  }
  void SquaredNorm(Stream& stream, TensorView gradient, TensorView partials) const override {
    Issue(stream, "SquaredNorm", [=](cudaStream_t s) { return cuda::SquaredNorm(s, gradient, partials); });
  }
  void DecideStep(Stream& stream, TensorView partials, float max_norm, TensorView control) const override {
    Issue(stream, "DecideStep", [=](cudaStream_t s) { return cuda::DecideStep(s, partials, max_norm, control); });
  }
  void GuessStep(Stream& stream, TensorView control, TensorView guess) const override {
    Issue(stream, "GuessStep", [=](cudaStream_t s) { return cuda::GuessStep(s, control, guess); });
  }
  void AdamW(Stream& stream, const AdamWArgs& args) const override {
    Issue(stream, "AdamW", [args](cudaStream_t s) { return cuda::AdamW(s, args); });
  }

  void Fill(Stream& stream, TensorView target, float value) const override {
    Issue(stream, "Fill", [=](cudaStream_t s) { return cuda::Fill(s, target, value); });
  }
  void Copy(Stream& stream, TensorView source, TensorView target) const override {
    Issue(stream, "Copy", [=](cudaStream_t s) { return cuda::Copy(s, source, target); });
  }
  void Hash(Stream& stream, TensorView source, TensorView hash) const override {
    Issue(stream, "Hash", HashWorkspaceBytes(source.bytes()),
          [=](cudaStream_t s, const Workspace& w) { return cuda::Hash(s, source, hash, w); });
  }
  void InitNormal(Stream& stream, const InitNormalArgs& args) const override {
    Issue(stream, "InitNormal", [args](cudaStream_t s) { return cuda::InitNormal(s, args); });
  }

 private:
  Matmul* const matmul_;
};

}  // namespace

std::unique_ptr<Operations> NewOperations(Matmul* matmul) { return std::make_unique<CudaOperations>(matmul); }

}  // namespace sluice::cuda
