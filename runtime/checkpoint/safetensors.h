// A safetensors file, mapped into memory for reading. Its header has been checked when it is open; its values are
// touched when somebody reads them.
//
// Threads: any. Move-only; spans into it end with it.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "runtime/checkpoint/safetensors_header.h"
#include "runtime/data/mapped_file.h"

namespace sluice {

struct StoredTensor {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;
  absl::Span<const std::byte> bytes;  // of no alignment; little-endian, row by row

  int64_t elements() const { return static_cast<int64_t>(bytes.size()) / BytesOf(type); }
};

class SafetensorsFile {
 public:
  // Errors: why the file can't be read; INVALID_ARGUMENT names what is wrong with it.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  int64_t bytes() const { return file_.bytes(); }
  // With the length before it.
  absl::Span<const std::byte> header() const { return {file_.data(), static_cast<size_t>(header_bytes_)}; }
  // In the order of their bytes.
  absl::Span<const StoredTensor> tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Null: there is none of this name.
  const StoredTensor* Find(absl::string_view name) const;

 private:
  MappedFile file_;
  int64_t header_bytes_ = 0;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
  absl::flat_hash_map<std::string, size_t> index_;
};

// Elements [begin, begin + out.size()) of the tensor as f32, exactly. INVALID_ARGUMENT: its type is neither F32, F16
// nor BF16. REQUIRES: it has that many.
absl::Status ReadFloats(const StoredTensor& tensor, int64_t begin, absl::Span<float> out);

}  // namespace sluice
