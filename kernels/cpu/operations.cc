#include "kernels/cpu/operations.h"

#include "base/check.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cached_attention.h"
#include "kernels/cpu/cross_entropy.h"
#include "kernels/cpu/dropout.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/hash.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/optimizer.h"
#include "kernels/cpu/random_init.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/sampling.h"
#include "kernels/cpu/stream.h"

namespace sluice::cpu {
namespace {

constexpr size_t kPartsMax = 64;

template <class Body>
void Issue(Stream& stream, const Body& body) {
  static_cast<CpuStream&>(stream).Issue(body);
}

class CpuOperations final : public Operations {
 public:
  int64_t PackedLinearBytes(const LinearShape& shape) const override { return cpu::PackedLinearBytes(shape); }
  void PackLinear(Stream& stream, const LinearShape& shape, TensorView weight, TensorView packed) const override {
    Issue(stream, [=](Team& team) { cpu::PackLinear(team, shape, weight, packed); });
  }
  void LinearForward(Stream& stream, const LinearForwardArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::LinearForward(team, args); });
  }
  void LinearInputGradient(Stream& stream, const LinearInputGradientArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::LinearInputGradient(team, args); });
  }
  void LinearWeightGradient(Stream& stream, const LinearWeightGradientArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::LinearWeightGradient(team, args); });
  }

  void NormForward(Stream& stream, const NormForwardArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::NormForward(team, args); });
  }
  void NormInputGradient(Stream& stream, const NormInputGradientArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::NormInputGradient(team, args); });
  }
  void NormWeightGradient(Stream& stream, const NormWeightGradientArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::NormWeightGradient(team, args); });
  }

  void AttentionForward(Stream& stream, const AttentionForwardArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::AttentionForward(team, args); });
  }
  void AttentionBackward(Stream& stream, const AttentionBackwardArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::AttentionBackward(team, args); });
  }
  int64_t KeyValueCacheBytes(const CacheShape& shape) const override { return cpu::KeyValueCacheBytes(shape); }
  void CachedAttention(Stream& stream, const CachedAttentionArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::CachedAttention(team, args); });
  }
  void Rope(Stream& stream, const RopeArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::Rope(team, args); });
  }

  void GeluForward(Stream& stream, const GeluForwardArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::GeluForward(team, args); });
  }
  void GeluBackward(Stream& stream, const GeluBackwardArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::GeluBackward(team, args); });
  }
  void SwigluForward(Stream& stream, const SwigluForwardArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::SwigluForward(team, args); });
  }
  void SwigluBackward(Stream& stream, const SwigluBackwardArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::SwigluBackward(team, args); });
  }
  void Dropout(Stream& stream, const DropoutArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::Dropout(team, args); });
  }
  void Add(Stream& stream, const AddArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::Add(team, args); });
  }

  void EmbeddingForward(Stream& stream, const EmbeddingForwardArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::EmbeddingForward(team, args); });
  }
  void EmbeddingGradient(Stream& stream, const EmbeddingGradientArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::EmbeddingGradient(team, args); });
  }
  void CrossEntropy(Stream& stream, const CrossEntropyArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::CrossEntropy(team, args); });
  }
  void LogitStatistics(Stream& stream, const LogitStatisticsArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::LogitStatistics(team, args); });
  }
  void SampleTokens(Stream& stream, const SampleTokensArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::SampleTokens(team, args); });
  }
  void AdamW(Stream& stream, const AdamWArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::AdamW(team, args); });
  }

  // A command has room for the parts' addresses; they share the sum's shape and type.
  void SumInOrder(Stream& stream, absl::Span<const TensorView> parts, TensorView sum) const override {
    CHECK(parts.size() <= kPartsMax) << parts.size() << " parts";
    struct Addresses {
      std::byte* data[kPartsMax];
      size_t count;
    } addresses{{}, parts.size()};
    for (size_t i = 0; i < parts.size(); ++i) {
      CHECK_EQ(parts[i].elements(), sum.elements()) << "part " << i;
      CHECK(parts[i].dtype == sum.dtype) << "part " << i << " is " << Name(parts[i].dtype);
      addresses.data[i] = parts[i].data;
    }
    Issue(stream, [addresses, sum](Team& team) {
      TensorView views[kPartsMax];
      for (size_t i = 0; i < addresses.count; ++i) views[i] = {addresses.data[i], sum.dtype, sum.shape};
      cpu::SumInOrder(team, {views, addresses.count}, sum);
    });
  }
  void SquaredNorm(Stream& stream, TensorView gradient, TensorView partials) const override {
    Issue(stream, [=](Team& team) { cpu::SquaredNorm(team, gradient, partials); });
  }
  void DecideStep(Stream& stream, TensorView partials, float max_norm, TensorView control) const override {
    Issue(stream, [=](Team& team) { cpu::DecideStep(team, partials, max_norm, control); });
  }
  void GuessStep(Stream& stream, TensorView control, TensorView guess) const override {
    Issue(stream, [=](Team& team) { cpu::GuessStep(team, control, guess); });
  }
  void Fill(Stream& stream, TensorView target, float value) const override {
    Issue(stream, [=](Team& team) { cpu::Fill(team, target, value); });
  }
  void Hash(Stream& stream, TensorView source, TensorView hash) const override {
    Issue(stream, [=](Team& team) { cpu::Hash(team, source, hash); });
  }
  void Copy(Stream& stream, TensorView source, TensorView target) const override {
    Issue(stream, [=](Team& team) { cpu::Copy(team, source, target); });
  }
  void InitNormal(Stream& stream, const InitNormalArgs& args) const override {
    Issue(stream, [args](Team& team) { cpu::InitNormal(team, args); });
  }
};

}  // namespace

std::unique_ptr<Operations> NewOperations() { return std::make_unique<CpuOperations>(); }

}  // namespace sluice::cpu
