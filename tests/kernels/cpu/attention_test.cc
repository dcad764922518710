// Attention of the CPU against double precision with the whole matrix of probabilities; the same bits from any team.
#include "kernels/cpu/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "kernels/cpu/team.h"
#include "tests/kernels/cpu/host_tensor.h"
#include "tests/kernels/reference_attention.h"

namespace sluice::cpu {
namespace {

struct Case {
  int64_t rows, sequence, heads, kv_heads, head_size;
  DType compute = DType::kF32;
  bool documents = false;  // first_key is given: several documents in a row
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

// The root of the mean square of the difference, and the largest, against the values' root mean square; and so the largest value.
struct Error {
  double mean = 0;
  double worst = 0;
  double largest = 0;
};
Error ErrorOf(const std::vector<double>& actual, const reference::Values& expected) {
  EXPECT_EQ(actual.size(), expected.size());
  double norm = 0, difference = 0, worst = 0, largest = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double d = std::abs(actual[i] - expected[i]);
    norm += expected[i] * expected[i];
    difference += d * d;
    largest = std::max(largest, std::abs(expected[i]));
    if (!(d <= worst)) worst = d;  // a NaN counts
  }
  const double unit = std::sqrt(norm / actual.size()) + 1e-6;
  return {std::sqrt(difference / actual.size()) / unit, worst / unit, largest / unit};
}

class AttentionTest : public testing::TestWithParam<Case> {
 protected:
  AttentionTest() {
    if (!c_.documents) return;
    for (int64_t b = 0; b < c_.rows; ++b) {
      int32_t first = 0;
      for (int64_t t = 0; t < c_.sequence; ++t) {
        const uint32_t word = Philox({static_cast<uint32_t>(t), static_cast<uint32_t>(b), 0, 0}, 7)[0];
        if (word % 11 == 0) first = static_cast<int32_t>(t);
        first_key_.push_back(first);
      }
    }
  }
  TensorView FirstKey() const { return c_.documents ? first_key_tensor().view() : TensorView{}; }
  const HostTensor& first_key_tensor() const {
    if (first_key_view_ == nullptr) {
      first_key_view_ = std::make_unique<HostTensor>(HostTensor::Of({c_.rows * c_.sequence}, first_key_));
    }
    return *first_key_view_;
  }
  reference::Attention Expected() const { return reference::Attention(shape_, qkv_.Doubles(), first_key_); }

  struct Results {
    HostTensor y, lse, dqkv;
  };
  Results Run(int threads) const {
    Team team(threads, {});
    Results r{HostTensor({tokens_, c_.heads * c_.head_size}, c_.compute),
              HostTensor({c_.rows, c_.heads, c_.sequence}, DType::kF32), HostTensor(qkv_.view().shape, c_.compute)};
    AttentionForward(team, {.shape = shape_, .qkv = qkv_, .first_key = FirstKey(), .y = r.y, .lse = r.lse});
    AttentionBackward(
        team,
        {.shape = shape_, .qkv = qkv_, .first_key = FirstKey(), .y = r.y, .lse = r.lse, .dy = dy_, .dqkv = r.dqkv});
    return r;
  }

  const Case c_ = GetParam();
  const AttentionShape shape_{c_.rows,     c_.sequence,  c_.heads,
                              c_.kv_heads, c_.head_size, 1.0f / std::sqrt(static_cast<float>(c_.head_size))};
  const int64_t tokens_ = c_.rows * c_.sequence;
  const HostTensor qkv_ =
      HostTensor::Random({tokens_, (c_.heads + 2 * c_.kv_heads) * c_.head_size}, c_.compute, 1, c_.spread);
  const HostTensor dy_ = HostTensor::Random({tokens_, c_.heads* c_.head_size}, c_.compute, 2);
  std::vector<int32_t> first_key_;
  mutable std::unique_ptr<HostTensor> first_key_view_;
};

TEST_P(AttentionTest, ForwardAndBackwardAgreeWithReference) {
  const auto expected = Expected();
  const Results actual = Run(2);
  // Rounding of scores of size s moves a probability by s * 2^-24: spread^2 is about the scores' size.
  const double f32 = 1e-6 * c_.spread * c_.spread;
  const bool bf16 = c_.compute == DType::kBF16;
  // A bf16 result is rounded to 8 bits (2^-9 relative, mean about half), and so are, on matrix registers, the
  // probabilities before it and the scores' gradients; the gradient sees y rounded, too.
  const Error y = ErrorOf(actual.y.Doubles(), expected.y);
  EXPECT_LE(y.mean, bf16 ? 1.5 * 0x1p-9 : f32);
  EXPECT_LE(y.worst, bf16 ? 0x1p-4 : 20 * f32);  // values of the first queries are many times the mean
  const std::vector<double> lse = actual.lse.Doubles();
  for (size_t i = 0; i < lse.size(); ++i)
    ASSERT_NEAR(lse[i], expected.lse[i], 2 * f32 + 1e-6 * std::abs(expected.lse[i]));
  const Error dqkv = ErrorOf(actual.dqkv.Doubles(), expected.Backward(dy_.Doubles()));
  // The first keys' gradients are sums over all queries, many times the mean, and saturated probabilities cancel.
  EXPECT_LE(dqkv.mean, bf16 ? 0x1p-7 : 3 * f32);
  EXPECT_LE(dqkv.worst, bf16 ? 0x1p-4 + 0x1p-7 * dqkv.largest : 100 * f32);
}

TEST_P(AttentionTest, BitsDoNotDependOnTheTeam) {
  const Results first = Run(1);
  for (const int threads : {2, 3, 1}) {
    const Results again = Run(threads);
    EXPECT_TRUE(first.y.Bits() == again.y.Bits() && first.lse.Bits() == again.lse.Bits() &&
                first.dqkv.Bits() == again.dqkv.Bits())
        << threads << " threads";
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionTest,
                         testing::Values(Case{1, 1, 1, 1, 8}, Case{2, 7, 2, 2, 20}, Case{3, 33, 4, 2, 8},
                                         Case{1, 64, 2, 1, 32}, Case{2, 130, 6, 2, 20, DType::kF32, true},
                                         Case{1, 140, 2, 2, 64}, Case{1, 330, 1, 1, 12},
                                         Case{2, 33, 2, 2, 128, DType::kF32, false, 8.0f},
                                         // Several blocks of keys.
                                         Case{1, 1300, 2, 1, 8}, Case{1, 1300, 1, 1, 8, DType::kF32, true},
                                         Case{1, 1, 1, 1, 8, DType::kBF16}, Case{3, 33, 4, 2, 20, DType::kBF16},
                                         Case{2, 70, 4, 2, 64, DType::kBF16, true},
                                         Case{1, 140, 2, 1, 32, DType::kBF16},
                                         Case{1, 330, 4, 2, 64, DType::kBF16},
                                         Case{2, 200, 2, 1, 128, DType::kBF16, true},
                                         Case{1, 97, 2, 2, 48, DType::kBF16, false, 8.0f}),
                         NameOf);

// What a query may not see has no influence: other documents, and the future.
TEST(AttentionMask, HiddenKeysHaveNoInfluence) {
  const AttentionShape shape{1, 100, 2, 1, 16, 0.25f};
  std::vector<int32_t> first_key(100);
  for (int t = 40; t < 100; ++t) first_key[t] = 40;
  const HostTensor first = HostTensor::Of({100}, first_key);
  HostTensor qkv = HostTensor::Random({100, 64}, DType::kF32, 1);
  Team team(1, {});
  HostTensor y({100, 32}, DType::kF32), lse({2, 100}, DType::kF32), changed_y({100, 32}, DType::kF32);
  AttentionForward(team, {.shape = shape, .qkv = qkv, .first_key = first, .y = y, .lse = lse});
  for (int64_t t : {0, 20, 39, 70, 99}) {
    for (int64_t i = 0; i < 64; ++i) qkv.Set(t * 64 + i, 3.0f);
  }
  AttentionForward(team, {.shape = shape, .qkv = qkv, .first_key = first, .y = changed_y, .lse = lse});
  const auto before = y.Doubles(), after = changed_y.Doubles();
  for (int64_t t = 0; t < 100; ++t) {
    const bool sees_a_change = t < 40 || t >= 70;
    EXPECT_EQ(before[t * 32] != after[t * 32], sees_a_change) << t;
  }
}

// The reference's own gradient against finite differences of its forward pass.
TEST(AttentionReference, GradientAgreesWithFiniteDifferences) {
  const AttentionShape shape{2, 5, 4, 2, 3, 0.6f};
  const std::vector<int32_t> first_key = {0, 0, 2, 2, 2, 0, 1, 1, 1, 4};
  const auto qkv = HostTensor::Random({10, 24}, DType::kF32, 1).Doubles();
  const auto dy = HostTensor::Random({10, 12}, DType::kF32, 2).Doubles();
  const auto loss = [&](const reference::Values& at) {
    const reference::Attention attention(shape, at, first_key);
    double sum = 0;
    for (size_t i = 0; i < dy.size(); ++i) sum += attention.y[i] * dy[i];
    return sum;
  };
  const auto gradient = reference::Attention(shape, qkv, first_key).Backward(dy);
  for (size_t i = 0; i < qkv.size(); ++i) {
    auto up = qkv, down = qkv;
    up[i] += 1e-5;
    down[i] -= 1e-5;
    EXPECT_NEAR(gradient[i], (loss(up) - loss(down)) / 2e-5, 1e-8) << i;
  }
}

}  // namespace
}  // namespace sluice::cpu
