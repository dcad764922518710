#include "runtime/models/encoding.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "runtime/checkpoint/floats.h"

namespace sluice {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian and read as they are");

constexpr int64_t kBlock = 32;

struct Layout {
  absl::string_view name;
  int64_t elements, bytes;
};
constexpr std::array<Layout, 6> kLayouts = {{{"F32", 1, 4},
                                             {"F16", 1, 2},
                                             {"BF16", 1, 2},
                                             {"Q8_0", kBlock, 2 + kBlock},
                                             {"Q4_0", kBlock, 2 + kBlock / 2},
                                             {"Q4_1", kBlock, 4 + kBlock / 2}}};
const Layout& LayoutOf(Encoding encoding) { return kLayouts[static_cast<size_t>(encoding)]; }

float HalfAt(const std::byte* from) {
  float value;
  F16ToF32(from, 1, &value);
  return value;
}

// The 32 elements of a block.
void DecodeBlock(Encoding encoding, const std::byte* block, float* out) {
  const float scale = HalfAt(block);
  if (encoding == Encoding::kQ8_0) {
    for (int64_t i = 0; i < kBlock; ++i) out[i] = scale * static_cast<float>(static_cast<int8_t>(block[2 + i]));
    return;
  }
  const bool has_minimum = encoding == Encoding::kQ4_1;
  const float minimum = has_minimum ? HalfAt(block + 2) : -8 * scale;
  const std::byte* const nibbles = block + (has_minimum ? 4 : 2);
  for (int64_t i = 0; i < kBlock / 2; ++i) {
    const auto pair = static_cast<uint8_t>(nibbles[i]);
    out[i] = scale * static_cast<float>(pair & 15) + minimum;
    out[i + kBlock / 2] = scale * static_cast<float>(pair >> 4) + minimum;
  }
}

void DecodeBlocks(Encoding encoding, const std::byte* row, int64_t first, absl::Span<float> out) {
  const int64_t end = first + static_cast<int64_t>(out.size()), bytes = BlockBytes(encoding);
  for (int64_t begin = first / kBlock * kBlock; begin < end; begin += kBlock) {
    const std::byte* const block = row + begin / kBlock * bytes;
    if (begin >= first && begin + kBlock <= end) {
      DecodeBlock(encoding, block, out.data() + (begin - first));
      continue;
    }
    float whole[kBlock];
    DecodeBlock(encoding, block, whole);
    const int64_t from = std::max(begin, first), to = std::min(begin + kBlock, end);
    std::copy(whole + (from - begin), whole + (to - begin), out.data() + (from - first));
  }
}

}  // namespace

absl::string_view Name(Encoding encoding) { return LayoutOf(encoding).name; }
int64_t BlockElements(Encoding encoding) { return LayoutOf(encoding).elements; }
int64_t BlockBytes(Encoding encoding) { return LayoutOf(encoding).bytes; }
int64_t StoredBytes(Encoding encoding, int64_t elements) {
  return elements / BlockElements(encoding) * BlockBytes(encoding);
}

void Decode(Encoding encoding, const std::byte* row, int64_t first, absl::Span<float> out) {
  switch (encoding) {
    case Encoding::kF32:
      std::memcpy(out.data(), row + 4 * first, 4 * out.size());
      return;
    case Encoding::kF16:
      F16ToF32(row + 2 * first, static_cast<int64_t>(out.size()), out.data());
      return;
    case Encoding::kBF16:
      BF16ToF32(row + 2 * first, static_cast<int64_t>(out.size()), out.data());
      return;
    case Encoding::kQ8_0:
    case Encoding::kQ4_0:
    case Encoding::kQ4_1:
      DecodeBlocks(encoding, row, first, out);
      return;
  }
}

}  // namespace sluice
