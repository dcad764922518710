// A folder of checkpoints, and how they get there:
//
//   ROOT/step-00001000/                     complete: manifest.json is whole
//   ROOT/step-00002000.partial-PID-N/       somebody writes it, or died doing so
//   ROOT/step-00000500.removed-PID/         is being removed
//   ROOT/.lock                              held by the one who writes here
//
// Written beside, every file synced, the manifest last, then the folder, then renamed: a process that is killed at any
// instant, or a machine that loses its power, leaves the old checkpoints and at most one new one, complete.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/checkpoint.pb.h"
#include "runtime/checkpoint/disk.h"

namespace sluice {

struct CheckpointEntry {
  int64_t step = 0;
  std::string path;
  // Or what is wrong with it: its files are looked at, not read.
  absl::StatusOr<proto::CheckpointManifest> manifest;
};
// Of a folder of checkpoints, ascending steps. NOT_FOUND: there is no such folder.
absl::StatusOr<std::vector<CheckpointEntry>> ListCheckpoints(const std::string& root);

// The checkpoint's folder that `path` means: itself, or the newest in it, complete or not. NOT_FOUND: it has none.
absl::StatusOr<std::string> CheckpointAt(const std::string& path);

// `error` of the checkpoint in `folder`, and behind it the newest complete one beside it that is older, if there is
// one.
absl::Status WithOlderOne(const absl::Status& error, const std::string& folder);

struct KeepRule {
  int64_t last = 3;   // the newest so many; at least 1
  int64_t every = 0;  // and those of which the step is a multiple of this; 0: none
};

// The right to write into a folder of checkpoints: one process has it, for as long as the object lives.
// Threads: one at a time.
class CheckpointStore {
 public:
  // Makes the folder, and removes what writers that died have left in it. FAILED_PRECONDITION: another process writes
  // there, and which. Other errors: it can't be written to.
  static absl::StatusOr<std::unique_ptr<CheckpointStore>> Open(const std::string& root, const KeepRule& keep = {},
                                                               Disk disk = {});
  ~CheckpointStore();
  CheckpointStore(const CheckpointStore&) = delete;
  CheckpointStore& operator=(const CheckpointStore&) = delete;

  const std::string& root() const { return root_; }

  // FAILED_PRECONDITION: there are checkpoints of later steps than this, at which a run begins: it would come to them
  // and could not write its own. Says what to do.
  absl::Status CheckBeginsAfter(int64_t step) const;

  // Makes the folder into which the shards of this step are written, by any process that sees it. ALREADY_EXISTS: the
  // checkpoint is there.
  absl::StatusOr<std::string> Begin(int64_t step);
  // Completes the checkpoint in a folder of Begin(), once all its shards are on the disk and in the manifest, and
  // removes older ones that the rule doesn't keep. Returns its path. On an error nothing has changed but that the
  // partial folder is gone. INVALID_ARGUMENT: a tensor is not whole.
  absl::StatusOr<std::string> Commit(const std::string& partial, proto::CheckpointManifest manifest);
  // Removes a folder of Begin() that can't be completed.
  void Abandon(const std::string& partial);

 private:
  CheckpointStore(std::string root, const KeepRule& keep, Disk disk)
      : root_(std::move(root)), keep_(keep), disk_(std::move(disk)) {}
  absl::Status Lock();
  absl::Status RemoveLeftovers() const;
  absl::StatusOr<std::string> Complete(const std::string& partial, const proto::CheckpointManifest& manifest) const;
  absl::Status Prune() const;

  const std::string root_;
  const KeepRule keep_;
  const Disk disk_;
  int lock_ = -1;
  int begun_ = 0;
};

}  // namespace sluice
