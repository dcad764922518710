// Attention over a cache against double precision over the whole sequences; the same bits however prompts are cut into
// calls, whatever else is in a call, and from any team.
#include "kernels/cpu/cached_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/team.h"
#include "tests/kernels/cpu/host_tensor.h"
#include "tests/kernels/reference_attention.h"

namespace sluice::cpu {
namespace {

struct Case {
  std::vector<int64_t> lengths;  // of the sequences
  int64_t heads, kv_heads, head_size;
  DType compute = DType::kF32;
};

class CachedAttentionTest : public testing::TestWithParam<Case> {
 protected:
  CachedAttentionTest() {
    for (size_t s = 0; s < c_.lengths.size(); ++s) {
      qkv_.push_back(HostTensor::Random({c_.lengths[s], width_}, c_.compute, 17 + s));
    }
  }

  // So many new tokens of a sequence.
  struct Piece {
    size_t sequence;
    int64_t begin, count;
  };
  // Each inner list is one call. Returns the results of all tokens, sequence after sequence.
  std::vector<std::vector<float>> Run(int threads, const std::vector<std::vector<Piece>>& calls) const {
    Team team(threads, {});
    const HostTensor cache({KeyValueCacheBytes(shape_) / 4}, DType::kF32);  // of NaNs
    std::vector<std::vector<float>> results;
    for (const int64_t length : c_.lengths) results.emplace_back(length * columns_);
    for (const std::vector<Piece>& call : calls) {
      std::vector<int32_t> sequences, positions;
      for (const Piece& piece : call) {
        for (int64_t i = 0; i < piece.count; ++i) {
          sequences.push_back(static_cast<int32_t>(piece.sequence));
          positions.push_back(static_cast<int32_t>(piece.begin + i));
        }
      }
      const auto tokens = static_cast<int64_t>(sequences.size());
      HostTensor qkv({tokens, width_}, c_.compute), y({tokens, columns_}, c_.compute);
      const int64_t row_bytes = width_ * SizeOf(c_.compute);
      for (int64_t i = 0; i < tokens; ++i) {
        std::memcpy(qkv.view().data + i * row_bytes, qkv_[sequences[i]].view().data + positions[i] * row_bytes,
                    row_bytes);
      }
      CachedAttention(team, {.shape = shape_,
                             .qkv = qkv,
                             .sequences = HostTensor::Of({tokens}, sequences),
                             .positions = HostTensor::Of({tokens}, positions),
                             .cache = cache,
                             .y = y});
      const std::vector<double> values = y.Doubles();
      for (int64_t i = 0; i < tokens; ++i) {
        std::copy_n(values.begin() + i * columns_, columns_, results[sequences[i]].begin() + positions[i] * columns_);
      }
    }
    return results;
  }

  std::vector<Piece> Whole() const {
    std::vector<Piece> pieces;
    for (size_t s = 0; s < c_.lengths.size(); ++s) pieces.push_back({s, 0, c_.lengths[s]});
    return pieces;
  }
  // All sequences side by side, a few tokens of each at a time.
  std::vector<std::vector<Piece>> InSteps(int64_t step) const {
    std::vector<std::vector<Piece>> calls;
    for (int64_t begin = 0;; begin += step) {
      std::vector<Piece> call;
      for (size_t s = 0; s < c_.lengths.size(); ++s) {
        if (begin < c_.lengths[s]) call.push_back({s, begin, std::min(step, c_.lengths[s] - begin)});
      }
      if (call.empty()) return calls;
      calls.push_back(call);
    }
  }

  const Case c_ = GetParam();
  const int64_t width_ = (c_.heads + 2 * c_.kv_heads) * c_.head_size;
  const int64_t columns_ = c_.heads * c_.head_size;
  const CacheShape shape_{.sequences = static_cast<int64_t>(c_.lengths.size()),
                          .context = *std::max_element(c_.lengths.begin(), c_.lengths.end()) + 1,
                          .heads = c_.heads,
                          .kv_heads = c_.kv_heads,
                          .head_size = c_.head_size,
                          .scale = 1.0f / std::sqrt(static_cast<float>(c_.head_size)),
                          .compute = c_.compute};
  std::vector<HostTensor> qkv_;
};

TEST_P(CachedAttentionTest, EqualsReferenceOverWholeSequences) {
  const auto results = Run(2, InSteps(3));
  for (size_t s = 0; s < c_.lengths.size(); ++s) {
    const AttentionShape shape{.rows = 1,
                               .sequence = c_.lengths[s],
                               .heads = c_.heads,
                               .kv_heads = c_.kv_heads,
                               .head_size = c_.head_size,
                               .scale = shape_.scale};
    const reference::Attention expected(shape, qkv_[s].Doubles(), {});
    // Values below 1 in averages: f32 sums over the head and the keys, then one rounding for bf16.
    const double tolerance = c_.compute == DType::kBF16 ? 0x1p-8 : 2e-6;
    for (size_t i = 0; i < results[s].size(); ++i)
      ASSERT_NEAR(results[s][i], expected.y[i], tolerance) << s << " " << i;
  }
}

TEST_P(CachedAttentionTest, SameBitsHoweverPromptsAreCut) {
  const auto expected = Run(1, {Whole()});
  for (const int threads : {1, 2, 3}) {
    EXPECT_EQ(Run(threads, {Whole()}), expected) << threads;
    for (const int64_t step : {1, 2, 5, 16}) EXPECT_EQ(Run(threads, InSteps(step)), expected) << step;
  }
  std::vector<std::vector<Piece>> one_by_one;
  for (const Piece& piece : Whole()) one_by_one.push_back({piece});
  EXPECT_EQ(Run(2, one_by_one), expected);
}

// In f32 it is the operation of training.
TEST_P(CachedAttentionTest, SameBitsAsAttentionWithoutCache) {
  if (c_.compute != DType::kF32) GTEST_SKIP() << "bf16 runs on other instructions in training";
  const auto results = Run(1, InSteps(1));
  Team team(1, {});
  for (size_t s = 0; s < c_.lengths.size(); ++s) {
    const int64_t length = c_.lengths[s];
    HostTensor y({length, columns_}, DType::kF32), lse({1, c_.heads, length}, DType::kF32);
    AttentionForward(team, {.shape = {.rows = 1,
                                      .sequence = length,
                                      .heads = c_.heads,
                                      .kv_heads = c_.kv_heads,
                                      .head_size = c_.head_size,
                                      .scale = shape_.scale},
                            .qkv = qkv_[s],
                            .y = y,
                            .lse = lse});
    const float* expected = y.view().as<float>();
    EXPECT_EQ(results[s], std::vector<float>(expected, expected + length * columns_)) << s;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CachedAttentionTest,
                         testing::Values(Case{{1}, 1, 1, 4}, Case{{7, 1, 20}, 4, 2, 8}, Case{{40, 33}, 3, 1, 20},
                                         Case{{70, 5, 64, 1}, 9, 3, 64}, Case{{9, 12}, 40, 1, 16},
                                         Case{{33, 50}, 6, 6, 80}, Case{{40, 3}, 6, 2, 32, DType::kBF16}));

}  // namespace
}  // namespace sluice::cpu
