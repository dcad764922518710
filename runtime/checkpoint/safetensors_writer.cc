#include "runtime/checkpoint/safetensors_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {
namespace {

// As much as a disk needs at once to be fast.
constexpr size_t kBufferBytes = 8 << 20;
// What is copied is in the cache when its checksum is made.
constexpr size_t kCopyBytes = 128 << 10;
static_assert(kBufferBytes % Disk::kAlignment == 0);

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
  writer->buffer_.reset(static_cast<std::byte*>(std::aligned_alloc(Disk::kAlignment, kBufferBytes)));
  if (writer->buffer_ == nullptr) return absl::ResourceExhaustedError(absl::StrCat(path, ": no memory to write it"));
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
    const auto part = bytes.first(std::min({bytes.size(), static_cast<size_t>(left), kCopyBytes}));
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

absl::Status SafetensorsWriter::Put(absl::Span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(bytes.size(), kBufferBytes - buffered_));
    std::memcpy(buffer_.get() + buffered_, part.data(), part.size());
    buffered_ += part.size();
    bytes.remove_prefix(part.size());
    if (buffered_ == kBufferBytes) RETURN_IF_ERROR(Flush());
  }
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Flush() {
  RETURN_IF_ERROR(disk_.Write(file_, path_, {buffer_.get(), buffered_}));
  result_.bytes += static_cast<int64_t>(buffered_);
  buffered_ = 0;
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsWriter::Written> SafetensorsWriter::Finish() {
  if (result_.tensor_checksums.size() != header_.tensors.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path_, ": tensor \"", header_.tensors[result_.tensor_checksums.size()].name, "\" has not all of its bytes"));
  }
  RETURN_IF_ERROR(Flush());
  RETURN_IF_ERROR(disk_.SyncAndClose(std::exchange(file_, -1), path_));
  return std::move(result_);
}

}  // namespace sluice
