// The manifest of a checkpoint as a file: JSON (proto/checkpoint.proto) whose first line has the checksum of the rest.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/checkpoint.pb.h"

namespace sluice {

inline constexpr char kManifestFile[] = "manifest.json";
inline constexpr int kCheckpointVersion = 1;

// INVALID_ARGUMENT: a text in it is no UTF-8.
absl::StatusOr<std::string> FormatManifest(const proto::CheckpointManifest& manifest);

// Takes any bytes. DATA_LOSS: they are not what was written. FAILED_PRECONDITION: of a newer version, and of which
// program. INVALID_ARGUMENT: pieces or files that can't be.
absl::StatusOr<proto::CheckpointManifest> ParseManifest(absl::string_view text);

// Of the checkpoint in `folder`. Looks also whether its shards are there, with the right size. Errors name the file;
// NOT_FOUND: there is no manifest.
absl::StatusOr<proto::CheckpointManifest> ReadManifest(const std::string& folder);

// Whether the pieces make every tensor up, each element once, and all parameters of the manifest's graph are there.
// INVALID_ARGUMENT names the tensor and what is missing or there twice.
absl::Status CheckPieces(const proto::CheckpointManifest& manifest);

// Of all shards.
int64_t BytesOf(const proto::CheckpointManifest& manifest);

}  // namespace sluice
