// Writes one shard of a checkpoint: the pieces of tensors that its writer has, in the order in which they are
// announced. Each process of a job writes its own, into the folder that CheckpointStore::Begin made.
//
// Threads: one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/checkpoint.pb.h"
#include "runtime/checkpoint/disk.h"
#include "runtime/checkpoint/piece.h"
#include "runtime/checkpoint/safetensors_writer.h"

namespace sluice {

class ShardWriter {
 public:
  // `file`: its name in `folder`, unlike every other shard's: "rank-00003.safetensors". Errors name the path.
  static absl::StatusOr<std::unique_ptr<ShardWriter>> Create(const std::string& folder, const std::string& file,
                                                             std::vector<Piece> pieces, const Disk& disk = Disk());

  // The values of the pieces, one piece after the other, in parts of any size.
  absl::Status Add(absl::Span<const float> values) { return writer_->Add(values); }

  // All of it is on the disk then. What the manifest says of it; it crosses processes. No call after this one.
  absl::StatusOr<proto::CheckpointShard> Finish();

 private:
  ShardWriter(std::string file, std::vector<Piece> pieces) : file_(std::move(file)), pieces_(std::move(pieces)) {}

  const std::string file_;
  const std::vector<Piece> pieces_;
  std::unique_ptr<SafetensorsWriter> writer_;
};

}  // namespace sluice
