#include "runtime/checkpoint/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr size_t kBufferBytes = 1 << 20;
// The disk begins to write while the rest is still on its way, and not when all is there.
constexpr int64_t kWritebackBytes = 8 << 20;

absl::Span<const std::byte> Bytes(absl::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, std::vector<TensorHeader> tensors, std::map<std::string, std::string> metadata,
    Disk disk) {
  SafetensorsHeader header{.tensors = std::move(tensors), .metadata = std::move(metadata)};
  const auto text = FormatSafetensorsHeader(&header);
  if (!text.ok()) return Annotate(text.status(), path);
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter(path, std::move(header), std::move(disk)));
  ASSIGN_OR_RETURN(writer->file_, writer->disk_.CreateFile(path));
  RETURN_IF_ERROR(writer->Put(Bytes(*text)));
  writer->result_.header_checksum = ChecksumOf(*text);
  writer->CloseTensors();
  return writer;
}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_ >= 0) close(file_);
}

absl::Status SafetensorsWriter::Add(absl::Span<const float> values) {
  return Add({reinterpret_cast<const std::byte*>(values.data()), 4 * values.size()});
}

absl::Status SafetensorsWriter::Add(absl::Span<const std::byte> bytes) {
  std::vector<uint64_t>& checksums = result_.tensor_checksums;
  while (!bytes.empty()) {
    if (checksums.size() == header_.tensors.size()) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ": more bytes than its tensors have"));
    }
    const int64_t left = header_.tensors[checksums.size()].bytes - tensor_written_;
    const auto part = bytes.first(std::min(bytes.size(), static_cast<size_t>(left)));
    checksum_.Add(part);
    RETURN_IF_ERROR(Put(part));
    tensor_written_ += static_cast<int64_t>(part.size());
    bytes.remove_prefix(part.size());
    CloseTensors();
  }
  return absl::OkStatus();
}

void SafetensorsWriter::CloseTensors() {
  std::vector<uint64_t>& checksums = result_.tensor_checksums;
  while (checksums.size() < header_.tensors.size() && tensor_written_ == header_.tensors[checksums.size()].bytes) {
    checksums.push_back(checksum_.Value());
    checksum_.Reset();
    tensor_written_ = 0;
  }
}

// What is large goes to the file at once, what is small is gathered.
absl::Status SafetensorsWriter::Put(absl::Span<const std::byte> bytes) {
  if (buffer_.size() + bytes.size() > kBufferBytes) {
    RETURN_IF_ERROR(ToFile(buffer_));
    buffer_.clear();
  }
  if (bytes.size() > kBufferBytes) return ToFile(bytes);
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::ToFile(absl::Span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min<size_t>(bytes.size(), kWritebackBytes));
    RETURN_IF_ERROR(disk_.Write(file_, path_, part));
    bytes.remove_prefix(part.size());
    in_file_ += static_cast<int64_t>(part.size());
    if (in_file_ - on_the_way_ < kWritebackBytes) continue;
    // Where a file system can't, all of it is written at the end.
    sync_file_range(file_, on_the_way_, in_file_ - on_the_way_, SYNC_FILE_RANGE_WRITE);
    on_the_way_ = in_file_;
  }
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsWriter::Written> SafetensorsWriter::Finish() {
  if (result_.tensor_checksums.size() != header_.tensors.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path_, ": tensor \"", header_.tensors[result_.tensor_checksums.size()].name, "\" has not all of its bytes"));
  }
  RETURN_IF_ERROR(ToFile(buffer_));
  RETURN_IF_ERROR(disk_.SyncAndClose(std::exchange(file_, -1), path_));
  result_.bytes = in_file_;
  return std::move(result_);
}

}  // namespace sluice
