// How fast the CPU's operations are on the shapes of GPT-2 124M, each beside its floor, on one core.
//   bazel run //tools/bench:kernels -- [PART OF A NAME]...
//
// Every operation runs as in training: on the operands of one layer after another, so that they come from where a step
// finds them, not from the nearest cache. Times are processor time, the median of several rounds over the layers.
// The floor of products is the best rate that oneDNN reaches on any of the shapes, in the same type and with all
// operands near; attention counts the scores that are not masked. The floor of everything else is the bytes that it
// must read and write at the rates of a sum and of a fill over 300 MB; what finds its operands in a cache can be below.
// The share is floor / time.
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/philox.h"
#include "kernels/cpu/activation.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/optimizer.h"
#include "kernels/cpu/team.h"

namespace sluice::cpu {
namespace {

constexpr int64_t kLayers = 12, kChannels = 768, kWidth = 3072, kHeads = 12, kVocabulary = 50304;
constexpr int64_t kRows = 2, kSequence = 256, kTokens = kRows * kSequence;
constexpr int kRounds = 7;

double ProcessorSeconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Seconds of one call of run(layer).
double Time(const std::function<void(int64_t layer)>& run, int64_t layers = kLayers) {
  std::vector<double> seconds;
  for (int round = 0; round <= kRounds; ++round) {
    const double begin = ProcessorSeconds();
    for (int64_t layer = 0; layer < layers; ++layer) run(layer);
    if (round > 0) seconds.push_back((ProcessorSeconds() - begin) / static_cast<double>(layers));
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRounds / 2, seconds.end());
  return seconds[kRounds / 2];
}

// Gives out tensors of random numbers, and keeps them.
class Tensors {
 public:
  TensorView Take(DType type, Shape shape) {
    std::vector<float>& memory = memory_.emplace_back((shape.elements() * SizeOf(type) + 3) / 4 + 16);
    const TensorView view{reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) / 64 * 64),
                          type, shape};
    for (int64_t i = 0; i < shape.elements(); ++i) {
      const float value = random_[(i * 7 + memory_.size()) % random_.size()];
      if (type == DType::kBF16) view.as<BFloat16>()[i] = ToBFloat16(value);
      if (type == DType::kF32) view.as<float>()[i] = value;
      if (type == DType::kI32) view.as<int32_t>()[i] = static_cast<int32_t>((value + 5) * 5000) % kVocabulary;
    }
    return view;
  }

 private:
  // Sums of uniform numbers: nearly normal, below 4.
  static std::vector<float> Random() {
    std::vector<float> values(8191);
    for (uint32_t i = 0; i < values.size(); ++i) {
      for (const uint32_t word : Philox({i, 0, 0, 0}, 1)) values[i] += static_cast<float>(word) * 0x1p-31f - 1.0f;
    }
    return values;
  }
  const std::vector<float> random_ = Random();
  std::deque<std::vector<float>> memory_;
};

class Bench {
 public:
  explicit Bench(std::vector<std::string> parts) : parts_(std::move(parts)) { MeasureMemory(); }
  void Linear(DType type);
  void Attention(DType type, int64_t rows, int64_t sequence, int64_t heads, int64_t head_size);
  void Activations(DType type);
  void Norms(DType type);
  void Embedding(DType type);
  void Parameters();

 private:
  bool Wanted(const std::string& name) const {
    return parts_.empty() || std::any_of(parts_.begin(), parts_.end(),
                                         [&](const std::string& part) { return name.find(part) != std::string::npos; });
  }
  double BestRate(DType type);
  void MeasureMemory();
  // Prints one line: a number of FLOPs, or of bytes read and written.
  void Product(const std::string& name, DType type, double flops, const std::function<void(int64_t)>& run);
  void Stream(const std::string& name, double read, double written, const std::function<void(int64_t)>& run,
              int64_t layers = kLayers);
  std::vector<TensorView> PerLayer(Tensors& tensors, DType type, Shape shape) {
    std::vector<TensorView> views;
    for (int64_t i = 0; i < kLayers; ++i) views.push_back(tensors.Take(type, shape));
    return views;
  }

  const std::vector<std::string> parts_;
  Team team_{1, {}};
  double best_rate_[2] = {};  // FLOPs a second of f32 and bf16 products
  double read_rate_ = 0, write_rate_ = 0;
};

struct Weight {
  const char* name;
  int64_t n, k;
};
constexpr Weight kWeights[] = {{"qkv", 3 * kChannels, kChannels},
                               {"out", kChannels, kChannels},
                               {"up", kWidth, kChannels},
                               {"down", kChannels, kWidth}};

// The library's forward product of one shape after another, all of it in one call and in its own layout.
double Bench::BestRate(DType type) {
  double& best = best_rate_[type == DType::kBF16];
  if (best > 0) return best;
  for (const Weight& w : kWeights) {
    Tensors tensors;
    const RightMatrix right{.depth = w.k, .columns = w.n, .type = type};
    const RightProduct product{.right = right, .rows = kTokens, .x_stride = w.k, .y_stride = w.n, .y_type = type};
    const TensorView x = tensors.Take(type, {kTokens, w.k}), y = tensors.Take(type, {kTokens, w.n});
    const TensorView packed = tensors.Take(type, {PackedBytes(right) / SizeOf(type)});
    const auto multiply = [&](int64_t) { Multiply(product, x.data, packed.data, nullptr, y.data); };
    best = std::max(
        best, 2.0 * static_cast<double>(kTokens * w.n * w.k) / Time([&](int64_t) { team_.ParallelFor(1, multiply); }));
  }
  std::printf("%-34s %30.1f GFLOP/s\n", type == DType::kBF16 ? "best of the library, bf16" : "best of the library, f32",
              best / 1e9);
  return best;
}

void Bench::MeasureMemory() {
  Tensors tensors;
  const auto x = PerLayer(tensors, DType::kF32, {kTokens, 4 * kWidth});
  const TensorView partials = tensors.Take(DType::kF32, {NormBlocks(x[0].elements())});
  const double bytes = static_cast<double>(x[0].bytes());
  read_rate_ = bytes / Time([&](int64_t i) { SquaredNorm(team_, x[i], partials); });
  write_rate_ = bytes / Time([&](int64_t i) { Fill(team_, x[i], 1.0f); });
  std::printf("%-34s %32.1f GB/s\n%-34s %32.1f GB/s\n", "reading", read_rate_ / 1e9, "writing", write_rate_ / 1e9);
}

void Bench::Product(const std::string& name, DType type, double flops, const std::function<void(int64_t)>& run) {
  const double floor = flops / BestRate(type), seconds = Time(run);
  std::printf("%-34s %8.0f us %8.0f us floor %7.1f GFLOP/s %5.0f %%\n", name.c_str(), seconds * 1e6, floor * 1e6,
              flops / seconds / 1e9, 100 * floor / seconds);
}

void Bench::Stream(const std::string& name, double read, double written, const std::function<void(int64_t)>& run,
                   int64_t layers) {
  const double floor = read / read_rate_ + written / write_rate_, seconds = Time(run, layers);
  std::printf("%-34s %8.0f us %8.0f us floor %10.1f GB/s %5.0f %%\n", name.c_str(), seconds * 1e6, floor * 1e6,
              (read + written) / seconds / 1e9, 100 * floor / seconds);
}

void Bench::Linear(DType type) {
  for (const Weight& w : kWeights) {
    const std::string suffix = std::string(" ") + w.name + " " + std::string(Name(type));
    if (!Wanted("linear forward" + suffix) && !Wanted("linear input gradient" + suffix) &&
        !Wanted("linear weight gradient" + suffix) && !Wanted("pack" + suffix)) {
      continue;
    }
    Tensors tensors;
    const LinearShape shape{w.n, w.k, type};
    const auto x = PerLayer(tensors, type, {kTokens, w.k}), y = PerLayer(tensors, type, {kTokens, w.n});
    const auto weight = PerLayer(tensors, DType::kF32, {w.n, w.k});
    const auto gradient = PerLayer(tensors, DType::kF32, {w.n, w.k});
    const auto packed = PerLayer(tensors, DType::kI32, {PackedLinearBytes(shape) / 4});
    const double flops = 2.0 * static_cast<double>(kTokens * w.n * w.k);
    for (int64_t i = 0; i < kLayers; ++i) PackLinear(team_, shape, weight[i], packed[i]);
    if (Wanted("linear forward" + suffix)) {
      Product("linear forward" + suffix, type, flops,
              [&](int64_t i) { LinearForward(team_, {.shape = shape, .x = x[i], .packed = packed[i], .y = y[i]}); });
    }
    if (Wanted("linear input gradient" + suffix)) {
      Product("linear input gradient" + suffix, type, flops, [&](int64_t i) {
        LinearInputGradient(team_, {.shape = shape, .dy = y[i], .packed = packed[i], .dx = x[i]});
      });
    }
    if (Wanted("linear weight gradient" + suffix)) {
      Product("linear weight gradient" + suffix, type, flops, [&](int64_t i) {
        LinearWeightGradient(team_, {.shape = shape, .x = x[i], .dy = y[i], .dweight = gradient[i]});
      });
    }
    if (Wanted("pack" + suffix)) {
      Stream("pack" + suffix, static_cast<double>(weight[0].bytes()), static_cast<double>(packed[0].bytes()),
             [&](int64_t i) { PackLinear(team_, shape, weight[i], packed[i]); });
    }
  }
}

void Bench::Attention(DType type, int64_t rows, int64_t sequence, int64_t heads, int64_t head_size) {
  const std::string suffix =
      " T" + std::to_string(sequence) + " D" + std::to_string(head_size) + " " + std::string(Name(type));
  if (!Wanted("attention forward" + suffix) && !Wanted("attention backward" + suffix)) return;
  Tensors tensors;
  const AttentionShape shape{rows, sequence, heads, heads, head_size, 1.0f / std::sqrt(static_cast<float>(head_size))};
  const int64_t tokens = rows * sequence, width = heads * head_size;
  const auto qkv = PerLayer(tensors, type, {tokens, 3 * width}), dqkv = PerLayer(tensors, type, {tokens, 3 * width});
  const auto y = PerLayer(tensors, type, {tokens, width}), dy = PerLayer(tensors, type, {tokens, width});
  const auto lse = PerLayer(tensors, DType::kF32, {rows, heads, sequence});
  const double scores = static_cast<double>(rows * heads * sequence * (sequence + 1) / 2 * head_size);
  const auto forward = [&](int64_t i) {
    AttentionForward(team_, {.shape = shape, .qkv = qkv[i], .y = y[i], .lse = lse[i]});
  };
  Product("attention forward" + suffix, type, 4 * scores, forward);
  Product("attention backward" + suffix, type, 10 * scores, [&](int64_t i) {
    AttentionBackward(team_, {.shape = shape, .qkv = qkv[i], .y = y[i], .lse = lse[i], .dy = dy[i], .dqkv = dqkv[i]});
  });
}

void Bench::Activations(DType type) {
  const std::string suffix = " " + std::string(Name(type));
  if (!Wanted("gelu swiglu add" + suffix)) return;
  Tensors tensors;
  const auto x = PerLayer(tensors, type, {kTokens, kWidth}), y = PerLayer(tensors, type, {kTokens, kWidth});
  const auto halves = PerLayer(tensors, type, {kTokens, kWidth / 2});
  const double bytes = static_cast<double>(x[0].bytes());
  Stream("gelu forward" + suffix, bytes, bytes, [&](int64_t i) { GeluForward(team_, {.x = x[i], .y = y[i]}); });
  Stream("gelu backward" + suffix, 2 * bytes, bytes,
         [&](int64_t i) { GeluBackward(team_, {.x = x[i], .dy = y[i], .dx = y[i]}); });
  Stream("swiglu forward" + suffix, bytes, bytes / 2,
         [&](int64_t i) { SwigluForward(team_, {.gate_up = x[i], .y = halves[i]}); });
  Stream("swiglu backward" + suffix, 1.5 * bytes, bytes,
         [&](int64_t i) { SwigluBackward(team_, {.gate_up = x[i], .dy = halves[i], .dgate_up = y[i]}); });
  Stream("add" + suffix, 2 * bytes, bytes, [&](int64_t i) { Add(team_, {.a = x[i], .b = y[i], .y = y[i]}); });
}

void Bench::Norms(DType type) {
  const std::string suffix = " " + std::string(Name(type));
  if (!Wanted("norm" + suffix)) return;
  Tensors tensors;
  const Shape shape{kTokens, kChannels};
  const auto x = PerLayer(tensors, type, shape), dy = PerLayer(tensors, type, shape);
  const auto y = PerLayer(tensors, type, shape), dx = PerLayer(tensors, type, shape);
  const TensorView gamma = tensors.Take(DType::kF32, {kChannels}), beta = tensors.Take(DType::kF32, {kChannels});
  const TensorView dgamma = tensors.Take(DType::kF32, {kChannels}), dbeta = tensors.Take(DType::kF32, {kChannels});
  const auto mean = PerLayer(tensors, DType::kF32, {kTokens}), rstd = PerLayer(tensors, DType::kF32, {kTokens});
  const double bytes = static_cast<double>(x[0].bytes());
  Stream("norm forward" + suffix, bytes, bytes, [&](int64_t i) {
    NormForward(team_, {.x = x[i], .gamma = gamma, .beta = beta, .y = y[i], .mean = mean[i], .rstd = rstd[i]});
  });
  Stream("norm input gradient" + suffix, 3 * bytes, bytes, [&](int64_t i) {
    NormInputGradient(
        team_, {.dy = dy[i], .x = x[i], .gamma = gamma, .mean = mean[i], .rstd = rstd[i], .add = dx[i], .dx = dx[i]});
  });
  Stream("norm weight gradient" + suffix, 2 * bytes, 0, [&](int64_t i) {
    NormWeightGradient(team_,
                       {.dy = dy[i], .x = x[i], .mean = mean[i], .rstd = rstd[i], .dgamma = dgamma, .dbeta = dbeta});
  });
}

void Bench::Embedding(DType type) {
  const std::string suffix = " " + std::string(Name(type));
  if (!Wanted("embedding" + suffix)) return;
  Tensors tensors;
  const TensorView table = tensors.Take(DType::kF32, {kVocabulary, kChannels});
  const TensorView positions = tensors.Take(DType::kF32, {kSequence, kChannels});
  const TensorView dtable = tensors.Take(DType::kF32, {kVocabulary, kChannels});
  const auto tokens = PerLayer(tensors, DType::kI32, {kTokens});
  TensorView places = tensors.Take(DType::kI32, {kTokens});
  for (int64_t i = 0; i < kTokens; ++i) places.as<int32_t>()[i] = static_cast<int32_t>(i % kSequence);
  const auto y = PerLayer(tensors, type, {kTokens, kChannels});
  const double bytes = static_cast<double>(y[0].bytes()), rows = static_cast<double>(kTokens * kChannels * 4);
  Stream("embedding forward" + suffix, rows, bytes, [&](int64_t i) {
    EmbeddingForward(
        team_, {.tokens = tokens[i], .positions = places, .table = table, .position_table = positions, .y = y[i]});
  });
  const auto gradient = [&](Accumulate accumulate) {
    return [&, accumulate](int64_t i) {
      EmbeddingGradient(team_, {.indices = tokens[i], .dy = y[i], .dtable = dtable, .accumulate = accumulate});
    };
  };
  Stream("embedding gradient, adding" + suffix, bytes + rows, rows, gradient(Accumulate::kAdd));
  Stream("embedding gradient, overwriting" + suffix, bytes, static_cast<double>(dtable.bytes()),
         gradient(Accumulate::kOverwrite), 1);
}

void Bench::Parameters() {
  if (!Wanted("adamw gradient norm sum of gradients")) return;
  Tensors tensors;
  const Shape shape{kWidth * kChannels};
  const auto parameter = PerLayer(tensors, DType::kF32, shape), gradient = PerLayer(tensors, DType::kF32, shape);
  const auto m = PerLayer(tensors, DType::kF32, shape), v = PerLayer(tensors, DType::kF32, shape);
  for (const TensorView& squares : v) Fill(team_, squares, 1.0f);
  const TensorView partials = tensors.Take(DType::kF32, {NormBlocks(shape.elements())});
  const TensorView control = tensors.Take(DType::kF32, {4});
  *control.as<StepControl>() = StepControl();
  const double bytes = static_cast<double>(parameter[0].bytes());
  Stream("adamw", 4 * bytes, 3 * bytes, [&](int64_t i) {
    AdamW(team_, {.parameter = parameter[i],
                  .gradient = gradient[i],
                  .m = m[i],
                  .v = v[i],
                  .control = control,
                  .learning_rate = 1e-3f});
  });
  Stream("gradient norm", bytes, 0, [&](int64_t i) { SquaredNorm(team_, gradient[i], partials); });
  Stream("sum of gradients", 2 * bytes, bytes, [&](int64_t i) {
    const TensorView parts[] = {gradient[i], m[i]};
    SumInOrder(team_, parts, gradient[i]);
  });
}

}  // namespace
}  // namespace sluice::cpu

int main(int argc, char** argv) {
  sluice::cpu::Bench bench({argv + 1, argv + argc});
  for (const sluice::DType type : {sluice::DType::kF32, sluice::DType::kBF16}) {
    bench.Linear(type);
    bench.Attention(type, 2, 256, 12, 64);
    bench.Attention(type, 1, 1024, 12, 64);
    bench.Attention(type, 1, 1024, 6, 128);
    bench.Activations(type);
    bench.Norms(type);
    bench.Embedding(type);
  }
  bench.Parameters();
  return 0;
}
