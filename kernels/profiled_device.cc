#include "kernels/profiled_device.h"

#include <map>
#include <tuple>
#include <utility>

#include "base/check.h"

namespace sluice {
namespace {

OperationTime Named(const char* operation) { return {.operation = operation, .calls = 1}; }

OperationTime Moving(const char* operation, int64_t read_bytes, int64_t written_bytes) {
  OperationTime time = Named(operation);
  time.read_bytes = static_cast<double>(read_bytes);
  time.written_bytes = static_cast<double>(written_bytes);
  return time;
}

OperationTime Linear(const char* operation, Products products, int64_t m, const LinearShape& shape) {
  OperationTime time = Named(operation);
  time.products = products;
  time.m = m;
  time.n = shape.n;
  time.k = shape.k;
  time.compute = shape.compute;
  time.flops = 2.0 * static_cast<double>(m) * static_cast<double>(shape.n) * static_cast<double>(shape.k);
  // However the device packs it, a weight has this many bytes.
  time.read_bytes = static_cast<double>(shape.n * shape.k * SizeOf(shape.compute));
  return time;
}

OperationTime LinearWeight(const LinearWeightGradientArgs& args) {
  OperationTime time = Linear("linear weight gradient", Products::kWeightGradient, args.dy.rows(), args.shape);
  const double bytes = static_cast<double>(args.dweight.bytes());
  time.read_bytes = args.accumulate == Accumulate::kAdd ? bytes : 0;
  time.written_bytes = bytes;
  return time;
}

// Causal: half of the T x T scores; `products` of them with the head size, two flops each.
OperationTime Attention(const char* operation, const AttentionShape& shape, DType compute, int products) {
  OperationTime time = Named(operation);
  time.products = Products::kAttention;
  time.m = time.n = shape.sequence;
  time.k = shape.head_size;
  time.compute = compute;
  time.flops = products * static_cast<double>(shape.rows * shape.heads) *
               static_cast<double>(shape.sequence * (shape.sequence + 1) * shape.head_size);
  return time;
}

// The rows of the tables that the tokens name.
OperationTime RowsRead(const EmbeddingForwardArgs& args) {
  return Moving("embedding forward", args.tokens.elements() * args.table.columns() * (args.position_table ? 8 : 4), 0);
}

OperationTime RowsAdded(const EmbeddingGradientArgs& args) {
  const int64_t rows = args.indices.elements() * args.dtable.columns() * 4;
  return Moving("embedding gradient", rows, args.accumulate == Accumulate::kAdd ? rows : args.dtable.bytes());
}

OperationTime Updated(const AdamWArgs& args) {
  return Moving("AdamW", 4 * args.parameter.bytes(), 3 * args.parameter.bytes());
}

OperationTime Sum(absl::Span<const TensorView> parts, const TensorView& sum) {
  return Moving("sum of gradients", static_cast<int64_t>(parts.size()) * sum.bytes(), sum.bytes());
}

class ProfiledOperations final : public Operations {
 public:
  ProfiledOperations(const Operations& inner, OperationProfile* profile) : inner_(inner), profile_(profile) {}

  int64_t PackedLinearBytes(const LinearShape& shape) const override { return inner_.PackedLinearBytes(shape); }
  void PackLinear(Stream& stream, const LinearShape& shape, TensorView weight, TensorView packed) const override {
    const int64_t bytes = shape.n * shape.k * SizeOf(shape.compute);  // read where AdamW writes them
    Timed(stream, Moving("pack weights", 0, bytes), [&] { inner_.PackLinear(stream, shape, weight, packed); });
  }
  void LinearForward(Stream& stream, const LinearForwardArgs& args) const override {
    Timed(stream, Linear("linear forward", Products::kForward, args.x.rows(), args.shape),
          [&] { inner_.LinearForward(stream, args); });
  }
  void LinearInputGradient(Stream& stream, const LinearInputGradientArgs& args) const override {
    Timed(stream, Linear("linear input gradient", Products::kInputGradient, args.dy.rows(), args.shape),
          [&] { inner_.LinearInputGradient(stream, args); });
  }
  void LinearWeightGradient(Stream& stream, const LinearWeightGradientArgs& args) const override {
    Timed(stream, LinearWeight(args), [&] { inner_.LinearWeightGradient(stream, args); });
  }
  void NormForward(Stream& stream, const NormForwardArgs& args) const override {
    Timed(stream, Named("norm forward"), [&] { inner_.NormForward(stream, args); });
  }
  void NormInputGradient(Stream& stream, const NormInputGradientArgs& args) const override {
    Timed(stream, Named("norm input gradient"), [&] { inner_.NormInputGradient(stream, args); });
  }
  void NormWeightGradient(Stream& stream, const NormWeightGradientArgs& args) const override {
    Timed(stream, Named("norm weight gradient"), [&] { inner_.NormWeightGradient(stream, args); });
  }
  void AttentionForward(Stream& stream, const AttentionForwardArgs& args) const override {
    Timed(stream, Attention("attention forward", args.shape, args.qkv.dtype, 2),
          [&] { inner_.AttentionForward(stream, args); });
  }
  void AttentionBackward(Stream& stream, const AttentionBackwardArgs& args) const override {
    Timed(stream, Attention("attention backward", args.shape, args.qkv.dtype, 5),
          [&] { inner_.AttentionBackward(stream, args); });
  }
  int64_t KeyValueCacheBytes(const CacheShape& shape) const override { return inner_.KeyValueCacheBytes(shape); }
  void CachedAttention(Stream& stream, const CachedAttentionArgs& args) const override {
    Timed(stream, Named("cached attention"), [&] { inner_.CachedAttention(stream, args); });
  }
  void Rope(Stream& stream, const RopeArgs& args) const override {
    Timed(stream, Named("rope"), [&] { inner_.Rope(stream, args); });
  }
  void GeluForward(Stream& stream, const GeluForwardArgs& args) const override {
    Timed(stream, Named("gelu forward"), [&] { inner_.GeluForward(stream, args); });
  }
  void GeluBackward(Stream& stream, const GeluBackwardArgs& args) const override {
    Timed(stream, Named("gelu backward"), [&] { inner_.GeluBackward(stream, args); });
  }
  void SwigluForward(Stream& stream, const SwigluForwardArgs& args) const override {
    Timed(stream, Named("swiglu forward"), [&] { inner_.SwigluForward(stream, args); });
  }
  void SwigluBackward(Stream& stream, const SwigluBackwardArgs& args) const override {
    Timed(stream, Named("swiglu backward"), [&] { inner_.SwigluBackward(stream, args); });
  }
  void Dropout(Stream& stream, const DropoutArgs& args) const override {
    Timed(stream, Named("dropout"), [&] { inner_.Dropout(stream, args); });
  }
  void Add(Stream& stream, const AddArgs& args) const override {
    Timed(stream, Named("add"), [&] { inner_.Add(stream, args); });
  }
  void EmbeddingForward(Stream& stream, const EmbeddingForwardArgs& args) const override {
    Timed(stream, RowsRead(args), [&] { inner_.EmbeddingForward(stream, args); });
  }
  void EmbeddingGradient(Stream& stream, const EmbeddingGradientArgs& args) const override {
    Timed(stream, RowsAdded(args), [&] { inner_.EmbeddingGradient(stream, args); });
  }
  void CrossEntropy(Stream& stream, const CrossEntropyArgs& args) const override {
    Timed(stream, Named("cross-entropy"), [&] { inner_.CrossEntropy(stream, args); });
  }
  void SampleTokens(Stream& stream, const SampleTokensArgs& args) const override {
    Timed(stream, Named("sampling"), [&] { inner_.SampleTokens(stream, args); });
  }
  void LogitStatistics(Stream& stream, const LogitStatisticsArgs& args) const override {
    Timed(stream, Named("cross-entropy"), [&] { inner_.LogitStatistics(stream, args); });
  }
  void SumInOrder(Stream& stream, absl::Span<const TensorView> parts, TensorView sum) const override {
    Timed(stream, Sum(parts, sum), [&] { inner_.SumInOrder(stream, parts, sum); });
  }
  void SquaredNorm(Stream& stream, TensorView gradient, TensorView partials) const override {
    Timed(stream, Moving("gradient norm", gradient.bytes(), 0),
          [&] { inner_.SquaredNorm(stream, gradient, partials); });
  }
  void DecideStep(Stream& stream, TensorView partials, float max_norm, TensorView control) const override {
    Timed(stream, Named("gradient norm"), [&] { inner_.DecideStep(stream, partials, max_norm, control); });
  }
  void GuessStep(Stream& stream, TensorView control, TensorView guess) const override {
    Timed(stream, Named("gradient norm"), [&] { inner_.GuessStep(stream, control, guess); });
  }
  void AdamW(Stream& stream, const AdamWArgs& args) const override {
    Timed(stream, Updated(args), [&] { inner_.AdamW(stream, args); });
  }
  void Fill(Stream& stream, TensorView target, float value) const override {
    Timed(stream, Moving("fill", 0, target.bytes()), [&] { inner_.Fill(stream, target, value); });
  }
  void Hash(Stream& stream, TensorView source, TensorView hash) const override {
    Timed(stream, Moving("hash", source.bytes(), 0), [&] { inner_.Hash(stream, source, hash); });
  }
  void Copy(Stream& stream, TensorView source, TensorView target) const override {
    Timed(stream, Moving("copy", source.bytes(), target.bytes()), [&] { inner_.Copy(stream, source, target); });
  }
  void InitNormal(Stream& stream, const InitNormalArgs& args) const override {
    Timed(stream, Named("initial values"), [&] { inner_.InitNormal(stream, args); });
  }

 private:
  // An event tells its time since the record before it, so that the work between two records is the operation alone.
  template <class Issue>
  void Timed(Stream& stream, OperationTime what, Issue issue) const {
    stream.Record();
    issue();
    profile_->Add({std::move(what), stream.Record()});
  }

  const Operations& inner_;
  OperationProfile* const profile_;
};

class ProfiledDevice final : public Device {
 public:
  ProfiledDevice(Device* inner, OperationProfile* profile) : inner_(inner), operations_(inner->operations(), profile) {}
  std::string description() const override { return inner_->description(); }
  absl::StatusOr<Buffer> Allocate(int64_t bytes, absl::string_view purpose) override {
    return inner_->Allocate(bytes, purpose);
  }
  std::unique_ptr<Stream> NewStream(absl::string_view name) override { return inner_->NewStream(name); }
  const Operations& operations() const override { return operations_; }
  MemoryUse memory() const override { return inner_->memory(); }

 private:
  void Free(std::byte*, int64_t) override { CHECK(false) << "buffers belong to the device underneath"; }

  Device* const inner_;
  const ProfiledOperations operations_;
};

}  // namespace

std::vector<OperationTime> OperationProfile::Collect() {
  std::map<std::tuple<int, std::string, int64_t, int64_t, int64_t, DType>, OperationTime> sums;
  for (const Record& record : records_) {
    const OperationTime& what = record.what;
    OperationTime& sum = sums[{what.label, what.operation, what.m, what.n, what.k, what.compute}];
    if (sum.calls == 0) {
      sum = what;
      sum.calls = 0;
      sum.flops = sum.read_bytes = sum.written_bytes = 0;
    }
    sum.calls += what.calls;
    sum.time += record.end->ended() - (record.begin ? record.begin->ended() : record.end->began());
    sum.flops += what.flops;
    sum.read_bytes += what.read_bytes;
    sum.written_bytes += what.written_bytes;
  }
  records_.clear();
  std::vector<OperationTime> result;
  for (auto& [key, sum] : sums) result.push_back(std::move(sum));
  return result;
}

std::unique_ptr<Device> NewProfiledDevice(Device* device, OperationProfile* profile) {
  return std::make_unique<ProfiledDevice>(device, profile);
}

}  // namespace sluice
