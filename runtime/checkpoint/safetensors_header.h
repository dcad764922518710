// The header of a safetensors file (huggingface/safetensors): which tensors, of which type and shape, lie where. Pure;
// takes any bytes.
//
//   u64 N, little-endian | N bytes of JSON, padded with spaces | the tensors' bytes, without a hole
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

// What the format knows.
enum class StoredType : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64,
};
// "F32", as in the file.
absl::string_view Name(StoredType type);
// Of one element.
int64_t BytesOf(StoredType type);

// Of one tensor.
struct TensorHeader {
  std::string name;
  StoredType type = StoredType::kF32;
  std::vector<int64_t> shape;  // a scalar has none
  int64_t begin = 0;           // of its bytes, counted from the end of the header
  int64_t bytes = 0;
  friend bool operator==(const TensorHeader&, const TensorHeader&) = default;
};

struct SafetensorsHeader {
  std::vector<TensorHeader> tensors;            // in the order of their bytes
  std::map<std::string, std::string> metadata;  // "__metadata__"
  int64_t bytes = 0;                            // of the header, the length before it counted
  friend bool operator==(const SafetensorsHeader&, const SafetensorsHeader&) = default;
};

// As in the format's own implementation.
inline constexpr int64_t kSafetensorsHeaderBytesMax = 100'000'000;

// Reads the header at the beginning of a file of `file_bytes`, of which `file` has the first bytes, at least all of the
// header if it is there. Everything has been checked then: the tensors' names differ, their bytes lie within the file,
// one behind the other, as many as type and shape say. INVALID_ARGUMENT says what is wrong, of which tensor.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view file, int64_t file_bytes);

// The header's bytes, padded so that the tensors begin at a multiple of 8; sets what follows from names, types and
// shapes: where each begins, and how large header and tensors are. INVALID_ARGUMENT: two tensors of one name, a
// negative size, more than fits.
absl::StatusOr<std::string> FormatSafetensorsHeader(SafetensorsHeader* header);

}  // namespace sluice
