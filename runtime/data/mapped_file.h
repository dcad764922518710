// A whole file, mapped into memory for reading.
//
// Move-only; unmapped when it dies. May be read from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace sluice {

class MappedFile {
 public:
  // Errors: why the file can't be read; INVALID_ARGUMENT for an empty one and for what is no regular file.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept { Swap(other); }
  MappedFile& operator=(MappedFile other) noexcept {
    Swap(other);
    return *this;
  }
  ~MappedFile();

  const std::string& path() const { return path_; }
  const std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  // Has the system read these bytes, of a mapped file, from the disk while the caller does other things. A hint.
  static void Prefetch(absl::Span<const std::byte> bytes);
  absl::string_view text() const { return {reinterpret_cast<const char*>(data_), static_cast<size_t>(bytes_)}; }

 private:
  void Swap(MappedFile& other) noexcept;

  std::string path_;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace sluice
