// Outcomes as messages between processes (proto/work.proto).
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "base/time.h"
#include "proto/work.pb.h"
#include "runtime/trainer/outcome.h"
#include "runtime/trainer/shard_saver.h"
#include "runtime/trainer/worker.h"

namespace sluice {

void AddOutcomes(const std::vector<RankOutcome>& ranks, proto::Answer* answer);
void AddHashes(const std::vector<TensorHash>& hashes, proto::Answer* answer);
void AddSaved(const absl::StatusOr<SavedShards>& saved, proto::Answer* answer);

// Times are put on the receiver's clock. INVALID_ARGUMENT: what no rank of this job can have sent.
absl::StatusOr<std::vector<RankOutcome>> OutcomesOf(const proto::Answer& answer, const RankGrid& grid);
absl::StatusOr<std::vector<TensorHash>> HashesOf(const proto::Answer& answer, const RankGrid& grid);
absl::StatusOr<SavedShards> SavedOf(const proto::Saved& saved);

}  // namespace sluice
