#include "runtime/tokenizer/byte_alphabet.h"

#include <algorithm>
#include <array>

namespace sluice {
namespace {

constexpr int kCharacters = 0x100 + 68;

constexpr bool StandsForItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

// Character -> byte; -1: not of the alphabet.
constexpr std::array<int16_t, kCharacters> kByteOf = [] {
  std::array<int16_t, kCharacters> byte_of{};
  for (int16_t& byte : byte_of) byte = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    byte_of[StandsForItself(byte) ? byte : next++] = static_cast<int16_t>(byte);
  }
  return byte_of;
}();

}  // namespace

std::optional<std::string> BytesOfAlphabet(absl::string_view text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    int character = static_cast<unsigned char>(text[i]);
    if (character >= 0x80) {  // the alphabet ends below U+0800: two bytes each
      if ((character & 0xe0) != 0xc0 || i + 1 == text.size()) return std::nullopt;
      const int low = static_cast<unsigned char>(text[++i]);
      if ((low & 0xc0) != 0x80) return std::nullopt;
      character = (character & 0x1f) << 6 | (low & 0x3f);
    }
    if (character >= kCharacters || kByteOf[character] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kByteOf[character]));
  }
  return bytes;
}

std::string AlphabetOfBytes(absl::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    const auto found = std::find(kByteOf.begin(), kByteOf.end(), static_cast<unsigned char>(byte));
    const auto character = static_cast<int>(found - kByteOf.begin());
    if (character < 0x80) {
      text.push_back(static_cast<char>(character));
    } else {
      text.push_back(static_cast<char>(0xc0 | character >> 6));
      text.push_back(static_cast<char>(0x80 | (character & 0x3f)));
    }
  }
  return text;
}

}  // namespace sluice
