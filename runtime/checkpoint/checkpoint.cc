#include "runtime/checkpoint/checkpoint.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/checkpoint/store.h"
#include "runtime/data/mapped_file.h"
#include "stages/graph_io.h"

namespace sluice {
namespace {

constexpr StateKind kMoments[] = {StateKind::kFirstMoment, StateKind::kSecondMoment};

const char* Describe(StateKind kind) {
  switch (kind) {
    case StateKind::kParameter:
      return "parameter";
    case StateKind::kGradient:
      return "gradient";
    case StateKind::kFirstMoment:
      return "first moment of";
    case StateKind::kSecondMoment:
      return "second moment of";
  }
  return "";
}

// Of bytes of a mapped file. The disk reads what comes next while this works on what is there.
uint64_t ChecksumOfMapped(absl::Span<const std::byte> bytes) {
  constexpr size_t kAhead = 16 << 20;
  Checksum checksum;
  MappedFile::Prefetch(bytes.first(std::min(bytes.size(), kAhead)));
  for (size_t at = 0; at < bytes.size(); at += kAhead) {
    if (at + kAhead < bytes.size()) MappedFile::Prefetch(bytes.subspan(at + kAhead, kAhead));
    checksum.Add(bytes.subspan(at, kAhead));
  }
  return checksum.Value();
}

std::string Shape(int64_t rows, int64_t columns) { return absl::StrCat("[", rows, ", ", columns, "]"); }

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string folder, CheckpointAt(path));
  const auto open = [&]() -> absl::StatusOr<std::unique_ptr<Checkpoint>> {
    ASSIGN_OR_RETURN(proto::CheckpointManifest manifest, ReadManifest(folder));
    std::unique_ptr<Checkpoint> checkpoint(new Checkpoint(folder, std::move(manifest)));
    RETURN_IF_ERROR(checkpoint->OpenShards());
    return checkpoint;
  };
  auto checkpoint = open();
  if (checkpoint.ok()) return checkpoint;
  return WithOlderOne(checkpoint.status(), folder);
}

absl::Status Checkpoint::OpenShards() {
  for (const proto::CheckpointShard& shard : manifest_.shard()) {
    ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(absl::StrCat(path_, "/", shard.file())));
    if (file.bytes() != shard.bytes() || ChecksumOf(file.header()) != shard.header_checksum()) {
      return absl::DataLossError(absl::StrCat(file.path(), ": its header is not as it was written"));
    }
    files_.push_back(std::move(file));
    RETURN_IF_ERROR(AddShard(shard, files_.back()));
  }
  for (const auto& [key, tensor] : tensors_) {
    std::vector<Rectangle> rectangles;
    for (const Part& part : tensor.parts) rectangles.push_back(part.rectangle);
    if (const auto overlap = FindOverlap(rectangles); overlap.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ": ", Describe(key.first), " \"", key.second,
                                                     "\": ", ToText(rectangles[overlap->second]), " are there twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::AddShard(const proto::CheckpointShard& shard, const SafetensorsFile& file) {
  const auto wrong = [&](absl::string_view name, absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": \"", name, "\" ", what));
  };
  for (const proto::CheckpointPiece& proto : shard.piece()) {
    ASSIGN_OR_RETURN(const Piece piece, FromProto(proto));
    const std::string key = KeyOf(piece);
    const StoredTensor* const tensor = file.Find(key);
    if (tensor == nullptr) return wrong(key, "is missing, though the manifest names it");
    if (tensor->type != StoredType::kF32 || tensor->elements() != piece.count) {
      return wrong(key, "is of another type or size than the manifest says");
    }
    const Stored& stored = stored_.emplace_back(&file, tensor, proto.checksum());
    Parts& parts = tensors_[{piece.kind, piece.name}];
    if (parts.pieces > 0 && (parts.rows != piece.complete_rows || parts.columns != piece.complete_columns)) {
      return wrong(piece.name, "has pieces of different shapes");
    }
    parts.rows = piece.complete_rows;
    parts.columns = piece.complete_columns;
    ++parts.pieces;
    for (const PieceRectangle& part : RectanglesOf(piece)) {
      parts.parts.push_back({part.rectangle, &stored, part.offset, piece.block.columns});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<LayerGraph> Checkpoint::Graph() const {
  return GraphFromText(manifest_.graph(), absl::StrCat(path_, "/", kManifestFile, ": graph"));
}

absl::StatusOr<const Checkpoint::Parts*> Checkpoint::Find(StateKind kind, absl::string_view name) const {
  const auto found = tensors_.find(Key(kind, std::string(name)));
  if (found != tensors_.end()) return &found->second;
  return absl::NotFoundError(absl::StrCat(path_, " has no ", Describe(kind), " \"", name, "\""));
}

absl::Status Checkpoint::CheckTensor(StateKind kind, const ParameterSpec& spec) const {
  ASSIGN_OR_RETURN(const Parts* const tensor, Find(kind, spec.name));
  const auto wrong = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": ", Describe(kind), " \"", spec.name, "\" ", what));
  };
  if (tensor->rows != spec.rows || tensor->columns != spec.columns) {
    return wrong(absl::StrCat("is ", Shape(tensor->rows, tensor->columns), " and not ", Shape(spec.rows, spec.columns),
                              ", as this model has it"));
  }
  std::vector<Rectangle> rectangles;
  for (const Part& part : tensor->parts) rectangles.push_back(part.rectangle);
  const auto gap = FindGap({0, 0, spec.rows, spec.columns}, rectangles);
  return gap.has_value() ? wrong(absl::StrCat("lacks ", ToText(*gap))) : absl::OkStatus();
}

absl::Status Checkpoint::Check(const LayerGraph& graph) const {
  std::set<std::string> known;
  const bool moments = HasMoments();
  for (const StageParameter& parameter : StageParameters(graph, 0, graph.nodes.size())) {
    known.insert(parameter.spec.name);
    RETURN_IF_ERROR(CheckTensor(StateKind::kParameter, parameter.spec));
    for (const StateKind kind : kMoments) {
      if (moments) RETURN_IF_ERROR(CheckTensor(kind, parameter.spec));
    }
  }
  for (const auto& [key, tensor] : tensors_) {
    if (known.contains(key.second)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(path_, " has a parameter \"", key.second, "\", which this model (", graph.name, ") has not"));
  }
  return absl::OkStatus();
}

bool Checkpoint::HasMoments() const {
  return std::any_of(tensors_.begin(), tensors_.end(),
                     [](const auto& entry) { return entry.first.first != StateKind::kParameter; });
}

absl::Status Checkpoint::Read(StateKind kind, absl::string_view name, const Slice& block, absl::Span<float> out) const {
  CHECK_EQ(static_cast<int64_t>(out.size()), block.elements());
  ASSIGN_OR_RETURN(const Parts* const tensor, Find(kind, name));
  const Rectangle wanted = RectangleOf(block), all{0, 0, tensor->rows, tensor->columns};
  const auto wrong = [&](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": ", Describe(kind), " \"", name, "\" ", Shape(all.rows, all.columns), " ", what));
  };
  if (wanted.elements() == 0) return absl::OkStatus();
  if (Intersection(wanted, all) != wanted) return wrong(absl::StrCat("has no ", ToText(wanted)));
  int64_t read = 0;
  std::vector<Rectangle> rectangles;
  for (const Part& part : tensor->parts) {
    rectangles.push_back(part.rectangle);
    const auto common = Intersection(part.rectangle, wanted);
    if (!common.has_value()) continue;
    RETURN_IF_ERROR(CheckBytes(*part.stored));
    RETURN_IF_ERROR(Copy(part, *common, block, out));
    read += common->elements();
  }
  if (read == wanted.elements()) return absl::OkStatus();
  return wrong(absl::StrCat("lacks ", ToText(*FindGap(wanted, rectangles))));
}

absl::Status Checkpoint::CheckBytes(const Stored& stored) {
  if (stored.verified.load(std::memory_order_relaxed)) return absl::OkStatus();
  if (ChecksumOfMapped(stored.tensor->bytes) != stored.checksum) {
    return absl::DataLossError(absl::StrCat(stored.file->path(), ": \"", stored.tensor->name,
                                            "\" is not as it was written (its checksum differs)"));
  }
  stored.verified.store(true, std::memory_order_relaxed);
  return absl::OkStatus();
}

absl::Status Checkpoint::Copy(const Part& part, const Rectangle& wanted, const Slice& block, absl::Span<float> out) {
  const int64_t from =
      part.offset + (wanted.row - part.rectangle.row) * part.stride + wanted.column - part.rectangle.column;
  const int64_t to = (wanted.row - block.row) * block.columns + wanted.column - block.column;
  // Whole rows on both sides lie one behind the other.
  const bool whole = wanted.columns == part.stride && wanted.columns == block.columns;
  const int64_t runs = whole ? 1 : wanted.rows, run = wanted.elements() / runs;
  for (int64_t i = 0; i < runs; ++i) {
    RETURN_IF_ERROR(ReadFloats(*part.stored->tensor, from + i * part.stride, out.subspan(to + i * block.columns, run)));
  }
  return absl::OkStatus();
}

std::vector<Checkpoint::Tensor> Checkpoint::tensors() const {
  std::vector<Tensor> tensors;
  for (const auto& [key, parts] : tensors_) {
    tensors.push_back({key.first, key.second, parts.rows, parts.columns, parts.pieces});
  }
  return tensors;
}

absl::Status Checkpoint::Verify(const std::function<void(int64_t bytes)>& progress) const {
  std::vector<std::string> errors;
  int64_t done = 0;
  for (const Stored& stored : stored_) {
    if (const absl::Status status = CheckBytes(stored); !status.ok()) errors.emplace_back(status.message());
    done += static_cast<int64_t>(stored.tensor->bytes.size());
    if (progress != nullptr) progress(done);
  }
  if (!errors.empty()) return WithOlderOne(absl::DataLossError(absl::StrJoin(errors, "\n")), path_);
  return Annotate(CheckPieces(manifest_), path_);
}

}  // namespace sluice
