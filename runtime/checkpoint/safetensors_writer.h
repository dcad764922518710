// Writes a safetensors file: names, types and shapes first, then the bytes of all tensors in that order, in parts of
// any size. Nothing is kept in memory but a buffer of 8 MiB; checksums are made on the way.
//
// Threads: one. A writer that goes away unfinished leaves a file that no reader takes for whole; its maker removes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/checkpoint/disk.h"
#include "runtime/checkpoint/safetensors_header.h"

namespace sluice {

class SafetensorsWriter {
 public:
  // Creates the file; there may be none of this path. Of `tensors`, names, types and shapes count. INVALID_ARGUMENT:
  // two of one name.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(const std::string& path,
                                                                   std::vector<TensorHeader> tensors,
                                                                   std::map<std::string, std::string> metadata = {},
                                                                   Disk disk = {});
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // The next bytes. INVALID_ARGUMENT: more than the tensors have. After an error there is no further call.
  absl::Status Add(absl::Span<const std::byte> bytes);
  absl::Status Add(absl::Span<const float> values);

  struct Written {
    int64_t bytes = 0;             // of the file
    uint64_t header_checksum = 0;  // of the header and its length
    std::vector<uint64_t> tensor_checksums;
  };
  // All of it is on the disk then. INVALID_ARGUMENT: bytes are missing. No call after this one.
  absl::StatusOr<Written> Finish();

 private:
  SafetensorsWriter(std::string path, SafetensorsHeader header, Disk disk)
      : path_(std::move(path)), header_(std::move(header)), disk_(std::move(disk)) {}
  absl::Status Put(absl::Span<const std::byte> bytes);
  absl::Status Flush();
  // Goes past the tensors that have all their bytes.
  void CloseTensors();

  const std::string path_;
  const SafetensorsHeader header_;
  const Disk disk_;
  int file_ = -1;
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };
  std::unique_ptr<std::byte, Free> buffer_;
  size_t buffered_ = 0;
  int64_t tensor_written_ = 0;  // bytes of the running tensor
  Checksum checksum_;           // of the running tensor
  Written result_;
};

}  // namespace sluice
