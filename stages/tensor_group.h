// TensorGroup: one shard's end of a tensor-parallel group, with the collectives that split layers need. All of them are
// posted on the transport when issued, to begin when the stream has come so far, and the stream's later work waits for
// them. Transports move bytes; sums are made by the device in the group's order, so every run gives the same bits.
//
// Threads: used by the rank's issuing thread. The transport outlives it, and it what was issued through it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "kernels/operations.h"
#include "kernels/transport.h"
#include "stages/tensor_parallel.h"

namespace sluice {

class TensorGroup {
 public:
  // For profiles: `ready` is done when this shard comes to a collective, `exchanged` when it can go on.
  using OnExchange = std::function<void(const EventRef& ready, const EventRef& exchanged)>;

  // A group of `size` shards that the transport has opened, in which this one is number `index`.
  TensorGroup(Transport* transport, GroupId group, int size, int index, OnExchange on_exchange = nullptr)
      : transport_(transport), group_(group), size_(size), index_(index), on_exchange_(std::move(on_exchange)) {}

  int size() const { return size_; }
  int index() const { return index_; }

  // Of M rows that each shard has partial sums of, a shard finishes those of ShareOf(M, size, index):
  //   mine = sum of the shards' rows, in their order (+ add)
  // `partial` is [M, C]; `mine` and `add` (optional) have this shard's rows, and `mine` may lie in its place in
  // `partial`. `exchange` is room for size x as many rows. All are of one type, f32 or bf16; a bf16 sum is rounded
  // once.
  void ReduceScatter(const Operations& operations, Stream& stream, TensorView partial, TensorView add, TensorView mine,
                     TensorView exchange);
  // Each shard's `mine` one after another; it may lie in its place in `all`. Shards have those of all rows, or of the
  // numbers of a vector, that ShareOf says.
  void AllGather(Stream& stream, TensorView mine, TensorView all);
  // The same, with the bytes of each shard's part, which stay until the exchange has ended.
  void AllGather(Stream& stream, TensorView mine, absl::Span<const int64_t> parts, TensorView all);
  // Both: `partial` becomes the sums of all M rows.
  void AllReduce(const Operations& operations, Stream& stream, TensorView partial, TensorView exchange);

  // This shard's rows of a tensor [M, C], in place.
  TensorView Mine(TensorView all) const;

 private:
  // What comes behind waits for it.
  void Join(Stream& stream, const EventRef& ready, const EventRef& exchanged) const;
  // Bytes of each shard's rows, kept: a transport reads them until the exchange has ended.
  const std::vector<int64_t>& PartBytes(int64_t rows, int64_t row_bytes);

  Transport* const transport_;
  const GroupId group_;
  const int size_, index_;
  const OnExchange on_exchange_;
  std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>> part_bytes_;
};

}  // namespace sluice
