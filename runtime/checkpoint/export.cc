#include "runtime/checkpoint/export.h"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/status.h"
#include "runtime/checkpoint/disk.h"
#include "runtime/checkpoint/safetensors_writer.h"
#include "runtime/checkpoint/shard_writer.h"
#include "runtime/checkpoint/store.h"

namespace sluice {
namespace {

constexpr int64_t kChunkElements = 1 << 20;

// Copies tensors from a source to a writer, some rows at a time.
template <class Writer>
class Copier {
 public:
  Copier(const ParameterSource& source, Writer* writer, const ExportProgress& progress)
      : source_(source), writer_(writer), progress_(progress) {}

  absl::Status Copy(StateKind kind, const std::string& name, int64_t rows, int64_t columns) {
    const int64_t rows_at_once = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, columns));
    for (int64_t row = 0; row < rows; row += rows_at_once) {
      const Slice block{.row = row, .rows = std::min(rows_at_once, rows - row), .columns = columns};
      values_.resize(static_cast<size_t>(block.elements()));
      RETURN_IF_ERROR(source_.Read(kind, name, block, absl::MakeSpan(values_)));
      RETURN_IF_ERROR(writer_->Add(absl::MakeConstSpan(values_)));
      done_ += 4 * block.elements();
      if (progress_ != nullptr) progress_(done_);
    }
    return absl::OkStatus();
  }

 private:
  const ParameterSource& source_;
  Writer* const writer_;
  const ExportProgress& progress_;
  std::vector<float> values_;
  int64_t done_ = 0;
};

std::vector<int64_t> ShapeOf(const ParameterSpec& spec) {
  return spec.rows == 1 ? std::vector<int64_t>{spec.columns} : std::vector<int64_t>{spec.rows, spec.columns};
}

absl::Status WriteParameters(const ParameterSource& source, const LayerGraph& graph, const std::string& path,
                             const ExportProgress& progress) {
  const std::vector<StageParameter> parameters = StageParameters(graph, 0, graph.nodes.size());
  std::vector<TensorHeader> tensors;
  for (const StageParameter& parameter : parameters) {
    tensors.push_back({.name = parameter.spec.name, .shape = ShapeOf(parameter.spec)});
  }
  ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::Create(path, std::move(tensors), {{"format", "pt"}}));
  Copier<SafetensorsWriter> copier(source, writer.get(), progress);
  for (const StageParameter& parameter : parameters) {
    const ParameterSpec& spec = parameter.spec;
    RETURN_IF_ERROR(copier.Copy(StateKind::kParameter, spec.name, spec.rows, spec.columns));
  }
  return writer->Finish().status();
}

absl::StatusOr<proto::CheckpointShard> WriteShard(const Checkpoint& checkpoint, const std::string& folder,
                                                  const ExportProgress& progress) {
  const std::vector<Checkpoint::Tensor> tensors = checkpoint.tensors();
  std::vector<Piece> pieces;
  for (const Checkpoint::Tensor& tensor : tensors) {
    pieces.push_back({.kind = tensor.kind,
                      .name = tensor.name,
                      .complete_rows = tensor.rows,
                      .complete_columns = tensor.columns,
                      .block = {.rows = tensor.rows, .columns = tensor.columns},
                      .count = tensor.elements()});
  }
  ASSIGN_OR_RETURN(const auto writer, ShardWriter::Create(folder, "all.safetensors", std::move(pieces)));
  Copier<ShardWriter> copier(checkpoint, writer.get(), progress);
  for (const Checkpoint::Tensor& tensor : tensors) {
    RETURN_IF_ERROR(copier.Copy(tensor.kind, tensor.name, tensor.rows, tensor.columns));
  }
  return writer->Finish();
}

}  // namespace

absl::Status ExportSafetensors(const ParameterSource& source, const LayerGraph& graph, const std::string& path,
                               const ExportProgress& progress) {
  if (access(path.c_str(), F_OK) == 0) {
    return absl::AlreadyExistsError(absl::StrCat(path, " is there already: remove it, or give another path"));
  }
  const std::string partial = absl::StrCat(path, ".partial-", getpid());
  absl::Status status = WriteParameters(source, graph, partial, progress);
  if (status.ok()) status = Disk().Rename(partial, path);
  if (!status.ok()) unlink(partial.c_str());
  return status;
}

absl::StatusOr<std::string> ExportCheckpoint(const Checkpoint& checkpoint, const std::string& root,
                                             const ExportProgress& progress) {
  const KeepRule all{.last = std::numeric_limits<int64_t>::max()};
  ASSIGN_OR_RETURN(const auto store, CheckpointStore::Open(root, all));
  ASSIGN_OR_RETURN(const std::string partial, store->Begin(checkpoint.manifest().step()));
  auto shard = WriteShard(checkpoint, partial, progress);
  if (!shard.ok()) {
    store->Abandon(partial);
    return shard.status();
  }
  proto::CheckpointManifest manifest = checkpoint.manifest();
  manifest.clear_shard();
  *manifest.add_shard() = *std::move(shard);
  return store->Commit(partial, std::move(manifest));
}

}  // namespace sluice
