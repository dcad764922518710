// A queue in a ring that grows when it is full and never shrinks. Not thread-safe.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace sluice::internal {

template <class T>
class Ring {
 public:
  size_t size() const { return size_; }
  T& operator[](size_t i) { return ring_[(first_ + i) % ring_.size()]; }
  const T& operator[](size_t i) const { return ring_[(first_ + i) % ring_.size()]; }

  void Push(T item) {
    if (size_ == ring_.size()) Grow();
    ring_[(first_ + size_++) % ring_.size()] = std::move(item);
  }
  // REQUIRES: it is not empty.
  T Pop() {
    T item = std::move(ring_[first_]);
    first_ = (first_ + 1) % ring_.size();
    --size_;
    return item;
  }

 private:
  void Grow() {
    std::vector<T> ring(ring_.size() * 2);
    for (size_t i = 0; i < size_; ++i) ring[i] = std::move((*this)[i]);
    ring_.swap(ring);
    first_ = 0;
  }

  std::vector<T> ring_{16};
  size_t first_ = 0;
  size_t size_ = 0;
};

}  // namespace sluice::internal
