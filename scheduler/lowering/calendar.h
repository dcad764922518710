// When work of pass 1's virtual time ends.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace sluice {

// What ends when: a ring of moments, wide enough for the longest piece of work, with one bit for each that is
// not empty. Ends of one moment come out by rank.
class Calendar {
 public:
  static constexpr int kMoments = 64;

  bool empty() const { return occupied_ == 0; }
  void Add(int64_t time, size_t rank) {
    occupied_ |= uint64_t{1} << (time % kMoments);
    moments_[time % kMoments].push_back(static_cast<uint32_t>(rank));
  }
  // The first moment after `now`. REQUIRES: not empty.
  int64_t Next(int64_t now) const {
    return now + 1 + std::countr_zero(std::rotr(occupied_, static_cast<int>((now + 1) % kMoments)));
  }
  // Takes out the ends of a moment; the list is valid until the next call.
  const std::vector<uint32_t>& Take(int64_t time) {
    taken_.clear();
    if (occupied_ & uint64_t{1} << (time % kMoments)) {
      occupied_ &= ~(uint64_t{1} << (time % kMoments));
      taken_.swap(moments_[time % kMoments]);
      std::sort(taken_.begin(), taken_.end());
    }
    return taken_;
  }

 private:
  std::array<std::vector<uint32_t>, kMoments> moments_;
  std::vector<uint32_t> taken_;
  uint64_t occupied_ = 0;
};

}  // namespace sluice
