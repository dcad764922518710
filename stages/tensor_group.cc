#include "stages/tensor_group.h"

#include <array>

#include "base/check.h"

namespace sluice {
namespace {

TensorView Rows(const TensorView& all, int64_t begin, int64_t count) {
  const int64_t columns = all.columns();
  return {all.data + begin * columns * SizeOf(all.dtype), all.dtype, {count, columns}};
}

}  // namespace

TensorView TensorGroup::Mine(TensorView all) const {
  const Share share = ShareOf(all.rows(), size_, index_);
  return Rows(all, share.begin, share.count);
}

const std::vector<int64_t>& TensorGroup::PartBytes(int64_t rows, int64_t row_bytes) {
  std::vector<int64_t>& bytes = part_bytes_[{rows, row_bytes}];
  for (int i = static_cast<int>(bytes.size()); i < size_; ++i) {
    bytes.push_back(ShareOf(rows, size_, i).count * row_bytes);
  }
  return bytes;
}

void TensorGroup::Join(Stream& stream, const EventRef& ready, const EventRef& exchanged) const {
  stream.Join(exchanged);
  if (on_exchange_) on_exchange_(ready, exchanged);
}

void TensorGroup::ReduceScatter(const Operations& operations, Stream& stream, TensorView partial, TensorView add,
                                TensorView mine, TensorView exchange) {
  const int64_t rows = mine.rows(), columns = partial.columns();
  CHECK_EQ(rows, ShareOf(partial.rows(), size_, index_).count) << "of " << partial.rows() << " rows";
  CHECK_GE(exchange.elements(), size_ * mine.elements()) << "room for the exchange";
  exchange.shape = {size_ * rows, columns};
  const std::vector<int64_t>& bytes = PartBytes(partial.rows(), columns * SizeOf(partial.dtype));
  const EventRef ready = stream.Fork();
  Join(stream, ready, transport_->AllToAll(group_, partial, bytes, exchange, ready));
  std::array<TensorView, kMaxTensorParallel + 1> parts;
  size_t count = 0;
  for (; count < static_cast<size_t>(size_); ++count) parts[count] = Rows(exchange, count * rows, rows);
  if (add) parts[count++] = add;
  operations.SumInOrder(stream, {parts.data(), count}, mine);
}

void TensorGroup::AllGather(Stream& stream, TensorView mine, TensorView all) {
  const int64_t shared = all.shape.rank() == 1 ? all.elements() : all.rows();
  if (shared % size_ == 0) return AllGather(stream, mine, {}, all);
  AllGather(stream, mine, PartBytes(shared, all.bytes() / shared), all);
}

void TensorGroup::AllGather(Stream& stream, TensorView mine, absl::Span<const int64_t> parts, TensorView all) {
  const EventRef ready = stream.Fork();
  Join(stream, ready, transport_->AllGather(group_, mine, parts, all, ready));
}

void TensorGroup::AllReduce(const Operations& operations, Stream& stream, TensorView partial, TensorView exchange) {
  const TensorView mine = Mine(partial);
  ReduceScatter(operations, stream, partial, {}, mine, exchange);
  AllGather(stream, mine, partial);
}

}  // namespace sluice
