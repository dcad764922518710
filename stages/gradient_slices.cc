#include "stages/gradient_slices.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "kernels/operations.h"
#include "stages/packer.h"

namespace sluice {
namespace {

struct Block {
  size_t tensor = 0;
  int64_t element = 0;  // the first one ...
  int64_t elements = 0;
  int64_t begin = 0;  // ... and its place in the flat order, in bytes
};

class Slicer {
 public:
  Slicer(absl::Span<const GradientTensor> tensors, int members, int64_t bucket_bytes)
      : tensors_(tensors), members_(members), bucket_bytes_(bucket_bytes) {}

  GradientSlices Slice() {
    for (size_t tensor = 0; tensor < tensors_.size(); ++tensor) {
      if (tensor > 0 && tensors_[tensor].group != tensors_[tensor - 1].group) CloseBucket();
      AddTensor(tensor);
    }
    CloseBucket();
    return std::move(slices_);
  }

 private:
  void AddTensor(size_t tensor) {
    slices_.bytes = RoundUpToPiece(slices_.bytes);
    slices_.tensor_begin.push_back(slices_.bytes);
    const int64_t elements = tensors_[tensor].elements;
    for (int64_t element = 0; element < elements; element += kNormBlock) {
      if (!open_.empty() && slices_.bytes - open_.front().begin >= bucket_bytes_) CloseBucket();
      open_.push_back({tensor, element, std::min(kNormBlock, elements - element), slices_.bytes});
      slices_.bytes += 4 * open_.back().elements;
    }
  }

  // A slice ends at the first border of blocks that gives its member no less than its share.
  void CloseBucket() {
    if (open_.empty()) return;
    slices_.bytes = RoundUpToPiece(slices_.bytes);
    const int64_t begin = open_.front().begin, bytes = slices_.bytes - begin;
    GradientBucket& bucket = slices_.buckets.emplace_back(GradientBucket{begin, std::vector<int64_t>(members_)});
    size_t next = 0;
    int64_t slice_begin = begin;
    for (int member = 0; member < members_; ++member) {
      const int64_t share_end = begin + bytes * (member + 1) / members_;
      for (; next < open_.size() && open_[next].begin < share_end; ++next) {
        AddToRun(open_[next], member, open_[next].begin - slice_begin);
      }
      const int64_t slice_end = next < open_.size() ? open_[next].begin : slices_.bytes;
      bucket.slice_bytes[member] = slice_end - slice_begin;
      slice_begin = slice_end;
    }
    open_.clear();
  }

  void AddToRun(const Block& block, int member, int64_t offset) {
    const size_t bucket = slices_.buckets.size() - 1;
    if (!slices_.runs.empty()) {
      SliceRun& last = slices_.runs.back();
      if (last.tensor == block.tensor && last.bucket == bucket && last.member == member) {
        last.count += block.elements;
        return;
      }
    }
    slices_.runs.push_back({block.tensor, block.element, block.elements, bucket, member, offset});
  }

  const absl::Span<const GradientTensor> tensors_;
  const int members_;
  const int64_t bucket_bytes_;
  GradientSlices slices_;
  std::vector<Block> open_;  // of the bucket that isn't closed
};

}  // namespace

int64_t GradientBucket::bytes() const { return bytes_before(static_cast<int>(slice_bytes.size())); }

int64_t GradientBucket::bytes_before(int member) const {
  return std::accumulate(slice_bytes.begin(), slice_bytes.begin() + member, int64_t{0});
}

GradientSlices SliceGradients(absl::Span<const GradientTensor> tensors, int members, int64_t bucket_bytes) {
  CHECK_GE(members, 1);
  CHECK_GE(bucket_bytes, 1);
  return Slicer(tensors, members, bucket_bytes).Slice();
}

}  // namespace sluice
