// How the gradients of a stage are spread over its holders, the members of its exchanges: all tensors lie in one flat
// order, which is cut into buckets that are exchanged one by one, and each bucket into one slice a member. Both are cut
// on borders of norm blocks, so that a slice's squared norms are partials of the whole. Pure: every member comes to the
// same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace sluice {

// What a bucket has at least, but for the last: much larger than what a link has under way, much smaller than a stage.
inline constexpr int64_t kBucketBytes = int64_t{16} << 20;

// The gradient that one use of a parameter makes.
struct GradientTensor {
  int64_t elements = 0;
  // No bucket has tensors of several groups, which are numbered in order: the slices of a group are the same wherever
  // it is, whatever is beside it.
  int group = 0;
};

struct GradientBucket {
  int64_t begin = 0;                 // bytes from the start of the flat order
  std::vector<int64_t> slice_bytes;  // of each member

  int64_t bytes() const;
  int64_t bytes_before(int member) const;  // slices of the members before
};

// Consecutive elements of one tensor in one slice: whole norm blocks.
struct SliceRun {
  size_t tensor = 0;
  int64_t begin = 0;  // first element, and how many
  int64_t count = 0;
  size_t bucket = 0;
  int member = 0;
  int64_t offset = 0;  // bytes from the start of the slice
};

struct GradientSlices {
  int64_t bytes = 0;                  // of the flat order
  std::vector<int64_t> tensor_begin;  // bytes; multiples of 64
  std::vector<GradientBucket> buckets;
  std::vector<SliceRun> runs;  // in flat order
};

// Of a stage's squared-norm partials in global order, the next `count` are this member's.
struct NormRun {
  int member = 0;
  int64_t count = 0;
  friend bool operator==(const NormRun&, const NormRun&) = default;
};

// REQUIRES: members and bucket_bytes positive, tensors not empty.
GradientSlices SliceGradients(absl::Span<const GradientTensor> tensors, int members, int64_t bucket_bytes);

}  // namespace sluice
