#include "kernels/cpu/operations.h"

#include <stdexcept>

#include "absl/strings/string_view.h"
#include "kernels/cpu/stream.h"

namespace sluice::cpu {
namespace {

CpuStream& OnCpu(Stream& stream) { return static_cast<CpuStream&>(stream); }

void NotYet(Stream& stream) {
  OnCpu(stream).Issue([](Team&) { throw std::runtime_error("operation is not linked in yet"); });
}

class CpuOperations final : public Operations {
 public:
  int64_t PackedLinearBytes(const LinearShape& shape) const override { return 64; }
  void PackLinear(Stream& s, const LinearShape&, TensorView, TensorView) const override { NotYet(s); }
  void LinearForward(Stream& s, const LinearForwardArgs&) const override { NotYet(s); }
  void LinearInputGradient(Stream& s, const LinearInputGradientArgs&) const override { NotYet(s); }
  void LinearWeightGradient(Stream& s, const LinearWeightGradientArgs&) const override { NotYet(s); }
  void NormForward(Stream& s, const NormForwardArgs&) const override { NotYet(s); }
  void NormInputGradient(Stream& s, const NormInputGradientArgs&) const override { NotYet(s); }
  void NormWeightGradient(Stream& s, const NormWeightGradientArgs&) const override { NotYet(s); }
  void AttentionForward(Stream& s, const AttentionForwardArgs&) const override { NotYet(s); }
  void AttentionBackward(Stream& s, const AttentionBackwardArgs&) const override { NotYet(s); }
  void Rope(Stream& s, const RopeArgs&) const override { NotYet(s); }
  void GeluForward(Stream& s, const GeluForwardArgs&) const override { NotYet(s); }
  void GeluBackward(Stream& s, const GeluBackwardArgs&) const override { NotYet(s); }
  void SwigluForward(Stream& s, const SwigluForwardArgs&) const override { NotYet(s); }
  void SwigluBackward(Stream& s, const SwigluBackwardArgs&) const override { NotYet(s); }
  void Dropout(Stream& s, const DropoutArgs&) const override { NotYet(s); }
  void Add(Stream& s, const AddArgs&) const override { NotYet(s); }
  void EmbeddingForward(Stream& s, const EmbeddingForwardArgs&) const override { NotYet(s); }
  void EmbeddingGradient(Stream& s, const EmbeddingGradientArgs&) const override { NotYet(s); }
  void CrossEntropyForward(Stream& s, const CrossEntropyForwardArgs&) const override { NotYet(s); }
  void CrossEntropyBackward(Stream& s, const CrossEntropyBackwardArgs&) const override { NotYet(s); }
  void SumInOrder(Stream& s, absl::Span<const TensorView>, TensorView) const override { NotYet(s); }
  void SquaredNorm(Stream& s, TensorView, TensorView) const override { NotYet(s); }
  void DecideStep(Stream& s, TensorView, float, TensorView) const override { NotYet(s); }
  void AdamW(Stream& s, const AdamWArgs&) const override { NotYet(s); }
  void Fill(Stream& s, TensorView, float) const override { NotYet(s); }
  void Copy(Stream& s, TensorView, TensorView) const override { NotYet(s); }
  void InitNormal(Stream& s, RandomKey, float, TensorView) const override { NotYet(s); }
};

}  // namespace

std::unique_ptr<Operations> NewOperations() { return std::make_unique<CpuOperations>(); }

}  // namespace sluice::cpu
