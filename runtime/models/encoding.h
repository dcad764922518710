// How files store the elements of tensors, and how they become floats.
//
// Pure. Blocks of Q8_0, Q4_0 and Q4_1 are those of ggml: 32 elements of a row each, little-endian.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace sluice {

enum class Encoding : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,  // scale f16, 32 signed bytes: scale * q
  kQ4_0,  // scale f16, 32 nibbles (the low ones first): scale * (q - 8)
  kQ4_1,  // scale f16, minimum f16, 32 nibbles: scale * q + minimum
};

// "F32", "Q4_1".
absl::string_view Name(Encoding encoding);

// Elements that are stored together: the rows of a tensor are multiples of it.
int64_t BlockElements(Encoding encoding);
int64_t BlockBytes(Encoding encoding);
// REQUIRES: elements is a multiple of BlockElements().
int64_t StoredBytes(Encoding encoding, int64_t elements);

// Elements [first, first + out.size()) of the row that begins at `row`, however it is aligned. Only the blocks that
// have them are read.
void Decode(Encoding encoding, const std::byte* row, int64_t first, absl::Span<float> out);

}  // namespace sluice
