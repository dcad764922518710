#include "stages/gradient_slices.h"

#include <gtest/gtest.h>

#include <random>

#include "kernels/operations.h"

namespace sluice {
namespace {

struct Case {
  std::vector<GradientTensor> tensors;
  int members = 1;
  int64_t bucket_bytes = 0;
};

Case RandomCase(std::mt19937& random) {
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  Case c{.members = 1 + below(8), .bucket_bytes = 1 + below(20) * 4 * kNormBlock / 3};
  for (int tensor = 1 + below(9); tensor > 0; --tensor) {
    const int group = c.tensors.empty() ? 0 : c.tensors.back().group + (below(3) == 0 ? 1 : 0);
    c.tensors.push_back({.elements = below(3) == 0 ? 1 + below(40) : 1 + below(6 * kNormBlock), .group = group});
  }
  return c;
}

TEST(GradientSlicesTest, EveryElementIsInOneSlice) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    const Case c = RandomCase(random);
    const GradientSlices slices = SliceGradients(c.tensors, c.members, c.bucket_bytes);
    std::vector<int64_t> next(c.tensors.size());
    for (const SliceRun& run : slices.runs) {
      EXPECT_EQ(run.begin, next[run.tensor]) << "no gap, no overlap";
      EXPECT_EQ(run.begin % kNormBlock, 0) << "on borders of blocks";
      EXPECT_GT(run.count, 0);
      next[run.tensor] += run.count;
      // In the flat order it lies where its slice says.
      const GradientBucket& bucket = slices.buckets[run.bucket];
      const int64_t place = slices.tensor_begin[run.tensor] + 4 * run.begin;
      EXPECT_EQ(place, bucket.begin + bucket.bytes_before(run.member) + run.offset);
      EXPECT_LE(run.offset + 4 * run.count, bucket.slice_bytes[run.member]);
    }
    for (size_t t = 0; t < next.size(); ++t) EXPECT_EQ(next[t], c.tensors[t].elements);
  }
}

TEST(GradientSlicesTest, BucketsFillTheFlatOrderAndSharesAreEvenButForABlock) {
  std::mt19937 random(2);
  for (int round = 0; round < 2000; ++round) {
    const Case c = RandomCase(random);
    const GradientSlices slices = SliceGradients(c.tensors, c.members, c.bucket_bytes);
    int64_t begin = 0;
    for (const GradientBucket& bucket : slices.buckets) {
      EXPECT_EQ(bucket.begin, begin);
      EXPECT_EQ(bucket.begin % 64, 0);
      EXPECT_LT(bucket.bytes(), c.bucket_bytes + 4 * kNormBlock + 64) << "closed as soon as it is full";
      ASSERT_EQ(bucket.slice_bytes.size(), static_cast<size_t>(c.members));
      for (const int64_t slice : bucket.slice_bytes) {
        EXPECT_LE(slice, bucket.bytes() / c.members + 4 * kNormBlock + 64);
        EXPECT_EQ(slice % 64, 0);
      }
      begin += bucket.bytes();
    }
    EXPECT_EQ(begin, slices.bytes);
  }
}

// Then those who exchange a group, in stages or shards that differ in the rest, have the same slices of it.
TEST(GradientSlicesTest, AGroupIsCutTheSameWhateverIsBesideIt) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    const Case c = RandomCase(random);
    const GradientSlices all = SliceGradients(c.tensors, c.members, c.bucket_bytes);
    std::vector<GradientBucket> buckets;
    for (auto begin = c.tensors.begin(), end = begin; begin != c.tensors.end(); begin = end) {
      while (end != c.tensors.end() && end->group == begin->group) ++end;
      const std::vector<GradientTensor> group(begin, end);
      for (const GradientBucket& bucket : SliceGradients(group, c.members, c.bucket_bytes).buckets) {
        buckets.push_back(bucket);
      }
    }
    ASSERT_EQ(buckets.size(), all.buckets.size());
    for (size_t b = 0; b < buckets.size(); ++b) EXPECT_EQ(buckets[b].slice_bytes, all.buckets[b].slice_bytes);
  }
}

}  // namespace
}  // namespace sluice
