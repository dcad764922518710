// Where the parts of a head lie in the tensors of attention.
#pragma once

#include <cstdint>

#include "kernels/cpu/team.h"
#include "kernels/operations.h"

namespace sluice::cpu {

// One row of the micro-batch and one key head of it.
struct KeyHead {
  AttentionShape shape;
  int64_t row;
  int64_t head;
  const int32_t* first_key;  // of this row, or none

  int64_t token(int64_t t) const { return row * shape.sequence + t; }
  int64_t group() const { return shape.heads / shape.kv_heads; }
  int64_t query_head(int64_t i) const { return head * group() + i; }
  int64_t width() const { return (shape.heads + 2 * shape.kv_heads) * shape.head_size; }
  int64_t y_width() const { return shape.heads * shape.head_size; }
  // Elements of qkv (dqkv) before token t's part of a head; heads are counted through queries, keys and values.
  int64_t QkvAt(int64_t t, int64_t part) const { return token(t) * width() + part * shape.head_size; }
  int64_t key_part() const { return shape.heads + head; }
  int64_t value_part() const { return key_part() + shape.kv_heads; }
  int64_t YAt(int64_t t, int64_t query) const { return token(t) * y_width() + query * shape.head_size; }
  int64_t LseAt(int64_t t, int64_t query) const { return (row * shape.heads + query) * shape.sequence + t; }
  // The first key that query t attends to.
  int64_t first_of(int64_t t) const { return first_key == nullptr ? 0 : first_key[t]; }
};

// Calls body for every (row, key head).
template <class Body>
void ForEachKeyHead(Team& team, const AttentionShape& shape, const TensorView& first_key, Body body) {
  team.ParallelFor(shape.rows * shape.kv_heads, [&](int64_t block) {
    const int64_t row = block / shape.kv_heads;
    body(KeyHead{shape, row, block % shape.kv_heads,
                 first_key ? first_key.as<int32_t>() + row * shape.sequence : nullptr});
  });
}

// Gives out pieces of a thread's scratch: first asked without memory for the sum, then with it.
class Pieces {
 public:
  explicit Pieces(std::byte* memory) : memory_(memory) {}
  template <class T>
  T* Take(int64_t elements) {
    auto* piece = reinterpret_cast<T*>(memory_ == nullptr ? nullptr : memory_ + used_);
    used_ += (elements * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return piece;
  }
  int64_t bytes() const { return used_; }

 private:
  std::byte* memory_;
  int64_t used_ = 0;
};

}  // namespace sluice::cpu
