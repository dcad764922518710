// Attention of a GPU against double precision with the whole matrix of probabilities. A simulated GPU runs some hundred
// million operations a second, so shapes are small: they cross the borders of tiles by little.
#include "kernels/cuda/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/kernels/cuda/on_gpu.h"
#include "tests/kernels/reference_attention.h"

namespace sluice::cuda {
namespace {

struct Case {
  int64_t rows, sequence, heads, kv_heads, head_size;
  DType compute = DType::kBF16;
  bool documents = false;  // several in a row
  float spread = 1.0f;     // of the inputs: larger ones saturate the softmax
};

std::string NameOf(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  std::string name = "B" + std::to_string(c.rows) + "T" + std::to_string(c.sequence) + "H" + std::to_string(c.heads) +
                     "G" + std::to_string(c.kv_heads) + "D" + std::to_string(c.head_size) +
                     std::string(Name(c.compute));
  if (c.documents) name += "Documents";
  if (c.spread != 1.0f) name += "Wide";
  return name;
}

struct Inputs {
  explicit Inputs(const Case& c)
      : shape{c.rows, c.sequence, c.heads, c.kv_heads, c.head_size, 1.0f / std::sqrt(static_cast<float>(c.head_size))},
        compute(c.compute),
        qkv(TestTensor::Random(compute, {c.rows * c.sequence, (c.heads + 2 * c.kv_heads) * c.head_size}, 1, c.spread)),
        dy(TestTensor::Random(compute, {c.rows * c.sequence, c.heads * c.head_size}, 2)) {
    if (!c.documents) return;
    std::mt19937 generator(3);
    for (int64_t i = 0; i < c.rows * c.sequence; ++i) {
      const auto t = static_cast<int32_t>(i % c.sequence);
      first_key.push_back(t == 0 || generator() % 29 == 0 ? t : first_key.back());
    }
  }
  reference::Attention Reference() const { return {shape, qkv.values(), first_key}; }

  AttentionShape shape;
  DType compute;
  TestTensor qkv, dy;
  std::vector<int32_t> first_key;  // empty: one document
};

struct Results {
  explicit Results(const Inputs& in)
      : y(in.compute, in.dy.shape()),
        lse(DType::kF32, {in.shape.rows, in.shape.heads, in.shape.sequence}),
        dqkv(in.compute, in.qkv.shape()) {}
  bool SameBits(const Results& other) const {
    return y.SameBits(other.y) && lse.SameBits(other.lse) && dqkv.SameBits(other.dqkv);
  }
  TestTensor y, lse, dqkv;
};

Results ForwardAndBackward(Inputs in) {
  Results out(in);
  TestTensor first_key = TestTensor::Integers(in.first_key);
  OnGpu gpu;
  const TensorView first = in.first_key.empty() ? TensorView{} : gpu(first_key);
  Succeed(AttentionForward(
      gpu.stream(), {.shape = in.shape, .qkv = gpu(in.qkv), .first_key = first, .y = gpu(out.y), .lse = gpu(out.lse)}));
  gpu.Finish(AttentionBackward(gpu.stream(),
                               {.shape = in.shape,
                                .qkv = gpu(in.qkv),
                                .first_key = first,
                                .y = gpu(out.y),
                                .lse = gpu(out.lse),
                                .dy = gpu(in.dy),
                                .dqkv = gpu(out.dqkv)},
                               gpu.Scratch(AttentionBackwardWorkspaceBytes(in.shape, in.compute))));
  return out;
}

// The root of the mean square of the difference and the largest one, over the values' root mean square; and so the
// largest value.
struct Error {
  double mean = 0;
  double worst = 0;
  double largest = 0;
};
Error ErrorOf(const TestTensor& actual, const reference::Values& expected) {
  EXPECT_EQ(actual.elements(), static_cast<int64_t>(expected.size()));
  double norm = 0, difference = 0, worst = 0, largest = 0;
  for (int64_t i = 0; i < actual.elements(); ++i) {
    const double d = std::abs(actual.at(i) - expected[i]);
    norm += expected[i] * expected[i];
    difference += d * d;
    largest = std::max(largest, std::abs(expected[i]));
    if (!(d <= worst)) worst = d;  // a NaN counts
  }
  const auto count = static_cast<double>(actual.elements());
  const double unit = std::sqrt(norm / count) + 1e-6;
  return {std::sqrt(difference / count) / unit, worst / unit, largest / unit};
}

class AttentionTest : public testing::TestWithParam<Case> {};

TEST_P(AttentionTest, ForwardAndBackwardAgreeWithReference) {
  const Inputs in(GetParam());
  const reference::Attention expected = in.Reference();
  const Results actual = ForwardAndBackward(in);
  const bool bf16 = in.compute == DType::kBF16;
  // Powers of two are good to about 2^-22, and rounding of scores of size s moves a probability by s * 2^-24.
  const double spread = GetParam().spread, f32 = 1e-6 * spread * spread;
  // A bf16 result is rounded to 8 bits (2^-9 relative, mean about half), and so are, on tensor cores, the probabilities
  // before it and the scores' gradients; the gradient sees y rounded, too.
  const Error y = ErrorOf(actual.y, expected.y);
  EXPECT_LE(y.mean, bf16 ? 1.5 * 0x1p-9 : f32);
  EXPECT_LE(y.worst, bf16 ? 0x1p-4 : 20 * f32);  // values of the first queries are many times the mean
  for (int64_t i = 0; i < actual.lse.elements(); ++i) {
    ASSERT_NEAR(actual.lse.at(i), expected.lse[i], 2 * f32 + 1e-6 * std::abs(expected.lse[i])) << i;
  }
  const Error dqkv = ErrorOf(actual.dqkv, expected.Backward(in.dy.values()));
  // The first keys' gradients are sums over all queries, many times the mean, and saturated probabilities cancel.
  EXPECT_LE(dqkv.mean, bf16 ? 0x1p-7 : 3 * f32);
  EXPECT_LE(dqkv.worst, bf16 ? 0x1p-4 + 0x1p-7 * dqkv.largest : 100 * f32);
}

INSTANTIATE_TEST_SUITE_P(Tiles, AttentionTest,
                         testing::Values(Case{1, 1, 1, 1, 64}, Case{1, 1, 1, 1, 128}, Case{2, 7, 2, 1, 64},
                                         Case{1, 64, 1, 1, 64}, Case{1, 65, 1, 1, 128},
                                         Case{2, 97, 2, 2, 64, DType::kBF16, true}, Case{1, 128, 1, 1, 64},
                                         Case{1, 129, 2, 1, 128}, Case{1, 200, 3, 1, 64, DType::kBF16, true},
                                         Case{1, 261, 2, 1, 64}, Case{2, 150, 2, 1, 128, DType::kBF16, true},
                                         Case{1, 140, 1, 1, 128, DType::kBF16, false, 4.0f},
                                         Case{1, 97, 1, 1, 64, DType::kBF16, true, 4.0f}),
                         NameOf);

INSTANTIATE_TEST_SUITE_P(Rows, AttentionTest,
                         testing::Values(Case{1, 1, 1, 1, 8, DType::kF32}, Case{2, 7, 2, 2, 20, DType::kF32},
                                         Case{3, 33, 4, 2, 16, DType::kF32}, Case{2, 70, 3, 1, 12, DType::kF32, true},
                                         Case{1, 41, 1, 1, 64, DType::kF32},
                                         Case{1, 33, 1, 1, 256, DType::kF32, false, 4.0f}, Case{1, 64, 2, 1, 32},
                                         Case{2, 35, 2, 1, 20, DType::kBF16, true}, Case{1, 37, 1, 1, 80}),
                         NameOf);

// Row `row` of the micro-batch alone.
Inputs OnlyRow(const Inputs& in, int64_t row) {
  Inputs one({1, in.shape.sequence, in.shape.heads, in.shape.kv_heads, in.shape.head_size, in.compute});
  for (int64_t i = 0; i < one.qkv.elements(); ++i) one.qkv.Set(i, in.qkv.at(row * one.qkv.elements() + i));
  for (int64_t i = 0; i < one.dy.elements(); ++i) one.dy.Set(i, in.dy.at(row * one.dy.elements() + i));
  return one;
}
void ExpectSamePart(const TestTensor& all, const TestTensor& part, int64_t row) {
  for (int64_t i = 0; i < part.elements(); ++i) ASSERT_EQ(all.at(row * part.elements() + i), part.at(i)) << i;
}

// A micro-batch may be cut between its rows, and run again.
TEST(AttentionBits, DependOnTheRowAlone) {
  for (const Case& c : {Case{3, 70, 2, 1, 64}, Case{2, 37, 2, 1, 128}, Case{3, 21, 2, 1, 16, DType::kF32}}) {
    const Inputs in(c);
    const Results all = ForwardAndBackward(in);
    EXPECT_TRUE(all.SameBits(ForwardAndBackward(in)));
    const Results last = ForwardAndBackward(OnlyRow(in, c.rows - 1));
    ExpectSamePart(all.y, last.y, c.rows - 1);
    ExpectSamePart(all.lse, last.lse, c.rows - 1);
    ExpectSamePart(all.dqkv, last.dqkv, c.rows - 1);
  }
}

// What a query may not see has no influence: other documents, and the future.
TEST(AttentionMask, HiddenKeysHaveNoInfluence) {
  for (const Case& c : {Case{1, 100, 2, 1, 64}, Case{1, 100, 2, 1, 16, DType::kF32}}) {
    Inputs in(c);
    in.first_key.assign(100, 0);
    std::fill(in.first_key.begin() + 40, in.first_key.end(), 40);
    const Results before = ForwardAndBackward(in);
    const int64_t width = in.qkv.shape().last(), y_width = in.dy.shape().last();
    for (const int64_t t : {0, 20, 39, 70, 99}) {
      for (int64_t i = 0; i < width; ++i) in.qkv.Set(t * width + i, 3.0);
    }
    const Results after = ForwardAndBackward(in);
    for (int64_t t = 0; t < 100; ++t) {
      const bool sees_a_change = t < 40 || t >= 70;
      bool changed = false;
      for (int64_t i = t * y_width; i < (t + 1) * y_width; ++i) changed |= before.y.at(i) != after.y.at(i);
      EXPECT_EQ(changed, sees_a_change) << t;
    }
  }
}

}  // namespace
}  // namespace sluice::cuda
