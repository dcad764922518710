#include "runtime/trainer/shard_saver.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/checkpoint/shard_writer.h"

namespace sluice {
namespace {

absl::StatusOr<proto::CheckpointShard> WriteShard(World* world, const RankSnapshot& snapshot,
                                                  const std::string& folder) {
  const std::string file = absl::StrFormat("rank-%05d.safetensors", snapshot.rank.value());
  ASSIGN_OR_RETURN(const auto writer,
                   ShardWriter::Create(folder, file, {snapshot.pieces.begin(), snapshot.pieces.end()}));
  RETURN_IF_ERROR(world->Wait(snapshot.copied));
  RETURN_IF_ERROR(writer->Add(snapshot.values));
  return writer->Finish();
}

absl::StatusOr<SavedShards> WriteShards(World* world, const absl::StatusOr<std::vector<RankSnapshot>>& snapshot,
                                        const std::string& folder) {
  RETURN_IF_ERROR(snapshot.status());
  SavedShards shards;
  absl::Status first;
  for (const RankSnapshot& rank : *snapshot) {
    if (rank.pieces.empty()) continue;  // others have all of its state
    auto shard = first.ok() ? WriteShard(world, rank, folder) : absl::StatusOr<proto::CheckpointShard>(first);
    first.Update(shard.status());
    if (shard.ok()) shards.push_back(*std::move(shard));
  }
  // Whoever takes the result may begin the next snapshot.
  for (const RankSnapshot& rank : *snapshot) world->WaitAny({&rank.copied, 1}, kForever);
  RETURN_IF_ERROR(first);
  return shards;
}

}  // namespace

ShardSaver::~ShardSaver() { Wait(); }

void ShardSaver::Start(absl::StatusOr<std::vector<RankSnapshot>> snapshot, std::string folder) {
  CHECK(!task_) << "the last result has not been taken";
  task_ = world_->Spawn({.name = "checkpoint"}, [this, snapshot = std::move(snapshot), folder = std::move(folder)] {
    result_ = WriteShards(world_, snapshot, folder);
  });
}

std::optional<absl::StatusOr<SavedShards>> ShardSaver::Take() {
  if (!task_ || !task_->Done()) return std::nullopt;
  task_ = nullptr;
  return std::move(result_);
}

void ShardSaver::Wait() const {
  if (task_) CHECK_OK(world_->Wait(task_));
}

}  // namespace sluice
