// Writes the wire format of Protocol Buffers by field number, for a format of which we write a dozen fields and read
// none.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "absl/strings/string_view.h"

namespace sluice {

class ProtobufWriter {
 public:
  // Appends to `out`, which must outlive it.
  explicit ProtobufWriter(std::string& out) : out_(out) {}

  void Varint(int field, uint64_t value) {
    Tag(field, 0);
    AppendVarint(value);
  }
  void Fixed64(int field, uint64_t value) {
    Tag(field, 1);
    for (int shift = 0; shift < 64; shift += 8) out_.push_back(static_cast<char>(value >> shift));
  }
  void Text(int field, absl::string_view text) {
    Tag(field, 2);
    AppendVarint(text.size());
    out_.append(text.data(), text.size());
  }
  // `fill()` writes the fields of the message inside.
  template <class Fill>
  void Message(int field, Fill fill) {
    Tag(field, 2);
    const size_t begin = out_.size();
    fill();
    char length[kVarintBytesMax];
    out_.insert(begin, length, Encode(out_.size() - begin, length));
  }

 private:
  static constexpr int kVarintBytesMax = 10;

  // Returns the number of bytes.
  static size_t Encode(uint64_t value, char* bytes) {
    size_t count = 0;
    for (; value >= 0x80; value >>= 7) bytes[count++] = static_cast<char>(value | 0x80);
    bytes[count++] = static_cast<char>(value);
    return count;
  }
  void AppendVarint(uint64_t value) {
    char bytes[kVarintBytesMax];
    out_.append(bytes, Encode(value, bytes));
  }
  void Tag(int field, int wire_type) {
    AppendVarint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire_type));
  }

  std::string& out_;
};

}  // namespace sluice
