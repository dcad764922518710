#include "runtime/checkpoint/shard_writer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {

absl::StatusOr<std::unique_ptr<ShardWriter>> ShardWriter::Create(const std::string& folder, const std::string& file,
                                                                 std::vector<Piece> pieces, const Disk& disk) {
  std::vector<TensorHeader> tensors;
  for (const Piece& piece : pieces) {
    tensors.push_back({.name = KeyOf(piece), .type = StoredType::kF32, .shape = ShapeOf(piece)});
  }
  std::unique_ptr<ShardWriter> shard(new ShardWriter(file, std::move(pieces)));
  // What PyTorch's readers of safetensors want to see.
  ASSIGN_OR_RETURN(shard->writer_, SafetensorsWriter::Create(absl::StrCat(folder, "/", file), std::move(tensors),
                                                             {{"format", "pt"}}, disk));
  return shard;
}

absl::StatusOr<proto::CheckpointShard> ShardWriter::Finish() {
  ASSIGN_OR_RETURN(const SafetensorsWriter::Written written, writer_->Finish());
  proto::CheckpointShard shard;
  shard.set_file(file_);
  shard.set_bytes(written.bytes);
  shard.set_header_checksum(written.header_checksum);
  for (size_t i = 0; i < pieces_.size(); ++i) {
    *shard.add_piece() = ToProto(pieces_[i], written.tensor_checksums[i]);
  }
  return shard;
}

}  // namespace sluice
