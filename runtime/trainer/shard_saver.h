// Writes what a process's ranks have of a snapshot into the folder of a checkpoint, one shard file a rank, in the
// background.
//
// Threads: one caller; the writing is a task of the World. The world outlives it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "proto/checkpoint.pb.h"
#include "runtime/trainer/snapshot.h"

namespace sluice {

using SavedShards = std::vector<proto::CheckpointShard>;

class ShardSaver {
 public:
  explicit ShardSaver(World* world) : world_(world) {}
  // Waits for the end of what is written.
  ~ShardSaver();

  // Begins to write, each rank's as soon as it has been copied. An error of the snapshot is what comes of it. REQUIRES:
  // the last result has been taken.
  void Start(absl::StatusOr<std::vector<RankSnapshot>> snapshot, std::string folder);
  // What came of Start(), once; nothing as long as it is being written, and if nothing was started. Errors name the
  // file and the remedy.
  std::optional<absl::StatusOr<SavedShards>> Take();
  // Returns when Take() has it.
  void Wait() const;

 private:
  World* const world_;
  EventRef task_;  // null: nothing was started, or it has been taken
  absl::StatusOr<SavedShards> result_ = SavedShards();
};

}  // namespace sluice
