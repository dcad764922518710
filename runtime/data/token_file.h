// A file of tokens, mapped into memory: bytes of text, or token ids of 16 or 32 bits.
//
// Move-only. Reading is const and may be done from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/data/mapped_file.h"

namespace sluice {

enum class TokenWidth : uint8_t { kByte = 1, kUint16 = 2, kUint32 = 4 };

// llm.c's header (dev/data/data_common.py) of a file of token ids of this width: magic, version, count, and zeros.
// REQUIRES: 16 or 32 bits, count >= 0.
std::string TokenFileHeader(TokenWidth width, int32_t count);

class TokenFile {
 public:
  // Every byte is a token. Errors: why the file can't be read; INVALID_ARGUMENT for an empty one.
  static absl::StatusOr<TokenFile> OpenText(const std::string& path);
  // Token ids, little-endian. A file that begins with llm.c's header (256 int32: magic 20240520, version 1, count; ids of
  // 16 bits; or magic 20240801, version 7, ids of 32 bits) says itself what it holds; any other is headerless, as nanoGPT writes them, with
  // ids of `headerless`. Errors: as above; a count that doesn't match the file's size; an id not below `vocabulary`,
  // with its place.
  static absl::StatusOr<TokenFile> OpenTokens(const std::string& path, TokenWidth headerless, int64_t vocabulary);

  const std::string& path() const { return map_.path(); }
  int64_t size() const { return size_; }  // tokens
  // tokens[offset ... offset + out.size()) -> out. REQUIRES: within the file.
  void Read(int64_t offset, absl::Span<int32_t> out) const;

 private:
  TokenFile() = default;
  absl::Status FindTokens(TokenWidth headerless);
  absl::Status CheckIds(int64_t vocabulary) const;

  MappedFile map_;
  int64_t begin_ = 0;  // bytes before the first token
  int64_t size_ = 0;
  TokenWidth width_ = TokenWidth::kByte;
};

}  // namespace sluice
