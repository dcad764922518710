// A checkpoint that is open for reading: any block of any tensor, put together from the pieces that its writers had, in
// whatever layout they were.
//
// A piece's checksum is checked when it is touched for the first time, so that whoever reads one stage's parameters
// reads one stage's bytes. Threads: any, at the same time. Its files stay mapped; that they are removed meanwhile does
// no harm.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/checkpoint.pb.h"
#include "runtime/checkpoint/parameter_source.h"
#include "runtime/checkpoint/piece.h"
#include "runtime/checkpoint/safetensors.h"

namespace sluice {

class Checkpoint final : public ParameterSource {
 public:
  // `path`: a checkpoint's folder, or a folder of checkpoints, of which the newest is taken. NOT_FOUND: there is none.
  // Other errors name the file that is wrong, and an older complete checkpoint that could be used instead, if there is
  // one.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const proto::CheckpointManifest& manifest() const { return manifest_; }
  // Of the model: from the manifest.
  absl::StatusOr<LayerGraph> Graph() const;

  // Also that there are both moments of each parameter, or of none.
  absl::Status Check(const LayerGraph& graph) const override;
  absl::Status Read(StateKind kind, absl::string_view name, const Slice& block, absl::Span<float> out) const override;
  // Whether there is optimizer state.
  bool HasMoments() const;

  struct Tensor {
    StateKind kind = StateKind::kParameter;
    std::string name;
    int64_t rows = 0, columns = 0;
    size_t pieces = 0;
    int64_t elements() const { return rows * columns; }
  };
  // By kind, then by name.
  std::vector<Tensor> tensors() const;

  // Checks every checksum, and that all tensors are whole. `progress`, if it is not null, hears of bytes done.
  // DATA_LOSS: every file and tensor whose bytes are not those that were written.
  absl::Status Verify(const std::function<void(int64_t bytes)>& progress = nullptr) const;

 private:
  // A piece in its file.
  struct Stored {
    Stored(const SafetensorsFile* file, const StoredTensor* tensor, uint64_t checksum)
        : file(file), tensor(tensor), checksum(checksum) {}
    const SafetensorsFile* file;
    const StoredTensor* tensor;
    uint64_t checksum;
    mutable std::atomic<bool> verified = false;
  };
  // A rectangle of the complete tensor, and where it is.
  struct Part {
    Rectangle rectangle;
    const Stored* stored;
    int64_t offset;  // of its first element there
    int64_t stride;  // elements from row to row
  };
  struct Parts {
    int64_t rows = 0, columns = 0;
    size_t pieces = 0;
    std::vector<Part> parts;
  };
  using Key = std::pair<StateKind, std::string>;

  Checkpoint(std::string path, proto::CheckpointManifest manifest)
      : path_(std::move(path)), manifest_(std::move(manifest)) {}
  absl::Status OpenShards();
  absl::Status AddShard(const proto::CheckpointShard& shard, const SafetensorsFile& file);
  absl::StatusOr<const Parts*> Find(StateKind kind, absl::string_view name) const;
  absl::Status CheckTensor(StateKind kind, const ParameterSpec& spec) const;
  static absl::Status CheckBytes(const Stored& stored);
  static absl::Status Copy(const Part& part, const Rectangle& wanted, const Slice& block, absl::Span<float> out);

  const std::string path_;
  const proto::CheckpointManifest manifest_;
  std::deque<SafetensorsFile> files_;
  std::deque<Stored> stored_;
  std::map<Key, Parts> tensors_;
};

}  // namespace sluice
