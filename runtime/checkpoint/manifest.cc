#include "runtime/checkpoint/manifest.h"

#include <sys/stat.h>

#include <cerrno>
#include <map>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "google/protobuf/util/json_util.h"
#include "proto/text.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/checkpoint/piece.h"
#include "stages/graph_io.h"
#include "stages/parameters.h"

namespace sluice {
namespace {

namespace json = google::protobuf::util;

// A thousand shards of a thousand tensors come nowhere near.
constexpr int64_t kManifestBytesMax = int64_t{1} << 30;

// The first line of the file, which stands for the "{" of the JSON in the lines behind it.
std::string FirstLine(absl::string_view rest) {
  return absl::StrFormat("{\"checksum\": \"%016x\",\n", ChecksumOf(rest));
}

absl::Status CheckShard(const proto::CheckpointShard& shard) {
  const std::string& file = shard.file();
  if (file.empty() || file[0] == '.' || file.find('/') != std::string::npos || file.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("a shard's file can't be \"", file, "\""));
  }
  std::set<std::string> keys;
  for (const proto::CheckpointPiece& proto : shard.piece()) {
    ASSIGN_OR_RETURN(const Piece piece, FromProto(proto));
    if (!keys.insert(KeyOf(piece)).second) {
      return absl::InvalidArgumentError(absl::StrCat(file, " has a piece of \"", piece.name, "\" twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckFile(const std::string& path, int64_t bytes) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return absl::NotFoundError(absl::StrCat(path, " is missing"));
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot look at ", path));
  }
  if (info.st_size == bytes) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(path, " has ", info.st_size, " bytes and not the ", bytes, " that were written: was it cut off?"));
}

}  // namespace

absl::StatusOr<std::string> FormatManifest(const proto::CheckpointManifest& manifest) {
  json::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = false;
  std::string text;
  const auto status = json::MessageToJsonString(manifest, &text, options);
  if (!status.ok() || text.empty() || text[0] != '{') {
    return absl::InvalidArgumentError(absl::StrCat("the manifest can't be written as JSON: ", status.ToString()));
  }
  const std::string rest = text.substr(1);
  return FirstLine(rest) + rest;
}

absl::StatusOr<proto::CheckpointManifest> ParseManifest(absl::string_view text) {
  const size_t line = text.find('\n');
  const absl::string_view rest = line == absl::string_view::npos ? absl::string_view() : text.substr(line + 1);
  if (rest.empty() || text.substr(0, line + 1) != FirstLine(rest)) {
    return absl::DataLossError("it is not as it was written (its checksum differs)");
  }
  proto::CheckpointManifest manifest;
  json::JsonParseOptions options;
  options.ignore_unknown_fields = true;  // of a newer version, which is told from its number
  const auto status = json::JsonStringToMessage(absl::StrCat("{", rest), &manifest, options);
  if (!status.ok()) return absl::InvalidArgumentError(absl::StrCat("it is no manifest: ", status.ToString()));
  if (manifest.format_version() > kCheckpointVersion) {
    return absl::FailedPreconditionError(absl::StrCat("it is of version ", manifest.format_version(), ", written by ",
                                                      manifest.program(), "; this program reads version ",
                                                      kCheckpointVersion, ": use that one or a newer one"));
  }
  if (manifest.format_version() < 1) return absl::InvalidArgumentError("it has no version");
  std::set<std::string> files;
  for (const proto::CheckpointShard& shard : manifest.shard()) {
    RETURN_IF_ERROR(CheckShard(shard));
    if (!files.insert(shard.file()).second) {
      return absl::InvalidArgumentError(absl::StrCat("it names ", shard.file(), " twice"));
    }
  }
  return manifest;
}

absl::StatusOr<proto::CheckpointManifest> ReadManifest(const std::string& folder) {
  const std::string path = absl::StrCat(folder, "/", kManifestFile);
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kManifestBytesMax));
  auto manifest = ParseManifest(text);
  if (!manifest.ok()) return Annotate(manifest.status(), path);
  for (const proto::CheckpointShard& shard : manifest->shard()) {
    RETURN_IF_ERROR(CheckFile(absl::StrCat(folder, "/", shard.file()), shard.bytes()));
  }
  return manifest;
}

absl::Status CheckPieces(const proto::CheckpointManifest& manifest) {
  struct Tensor {
    Rectangle all;
    std::vector<Rectangle> parts;
  };
  std::map<std::pair<StateKind, std::string>, Tensor> tensors;
  for (const proto::CheckpointShard& shard : manifest.shard()) {
    for (const proto::CheckpointPiece& proto : shard.piece()) {
      ASSIGN_OR_RETURN(const Piece piece, FromProto(proto));
      Tensor& tensor = tensors[{piece.kind, piece.name}];
      const Rectangle all{0, 0, piece.complete_rows, piece.complete_columns};
      if (!tensor.parts.empty() && !(tensor.all == all)) {
        return absl::InvalidArgumentError(absl::StrCat("\"", piece.name, "\" has pieces of different shapes"));
      }
      tensor.all = all;
      for (const PieceRectangle& part : RectanglesOf(piece)) tensor.parts.push_back(part.rectangle);
    }
  }
  for (const auto& [key, tensor] : tensors) {
    if (const auto overlap = FindOverlap(tensor.parts); overlap.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", key.second, "\": ", ToText(tensor.parts[overlap->second]), " are there twice"));
    }
    if (const auto gap = FindGap(tensor.all, tensor.parts); gap.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat("\"", key.second, "\": ", ToText(*gap), " are missing"));
    }
  }
  return absl::OkStatus();
}

int64_t BytesOf(const proto::CheckpointManifest& manifest) {
  int64_t bytes = 0;
  for (const proto::CheckpointShard& shard : manifest.shard()) bytes += shard.bytes();
  return bytes;
}

}  // namespace sluice
