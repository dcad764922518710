#include "runtime/data/token_file.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr int64_t kHeaderBytes = 256 * 4;
constexpr int32_t kMagicUint16 = 20240520;
constexpr int32_t kMagicUint32 = 20240801;

template <class T>
T Load(const std::byte* from, int64_t index) {
  T value;
  std::memcpy(&value, from + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

// Index of the first id not below `vocabulary`, or count.
template <class T>
int64_t FirstAbove(const std::byte* ids, int64_t count, int64_t vocabulary) {
  constexpr int64_t kBlock = 1 << 16;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(count, begin + kBlock);
    T largest = 0;
    for (int64_t i = begin; i < end; ++i) largest = std::max(largest, Load<T>(ids, i));
    if (static_cast<int64_t>(largest) < vocabulary) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (static_cast<int64_t>(Load<T>(ids, i)) >= vocabulary) return i;
    }
  }
  return count;
}

}  // namespace

std::string TokenFileHeader(TokenWidth width, int32_t count) {
  const bool narrow = width == TokenWidth::kUint16;
  const int32_t words[] = {narrow ? kMagicUint16 : kMagicUint32, narrow ? 1 : 7, count};
  std::string header(kHeaderBytes, '\0');
  std::memcpy(header.data(), words, sizeof words);
  return header;
}

absl::StatusOr<TokenFile> TokenFile::OpenText(const std::string& path) {
  TokenFile file;
  ASSIGN_OR_RETURN(file.map_, MappedFile::Open(path));
  file.size_ = file.map_.bytes();
  return file;
}

absl::StatusOr<TokenFile> TokenFile::OpenTokens(const std::string& path, TokenWidth headerless, int64_t vocabulary) {
  TokenFile file;
  ASSIGN_OR_RETURN(file.map_, MappedFile::Open(path));
  RETURN_IF_ERROR(file.FindTokens(headerless));
  RETURN_IF_ERROR(file.CheckIds(vocabulary));
  return file;
}

absl::Status TokenFile::FindTokens(TokenWidth headerless) {
  const int32_t magic = map_.bytes() >= kHeaderBytes ? Load<int32_t>(map_.data(), 0) : 0;
  const bool header = magic == kMagicUint16 || magic == kMagicUint32;
  width_ = magic == kMagicUint16 ? TokenWidth::kUint16 : magic == kMagicUint32 ? TokenWidth::kUint32 : headerless;
  begin_ = header ? kHeaderBytes : 0;
  const int64_t width = static_cast<int64_t>(width_);
  const int64_t bytes = map_.bytes() - begin_;
  size_ = bytes / width;
  if (header) {
    const int64_t count = Load<int32_t>(map_.data(), 2);
    if (count != size_ || bytes % width != 0) {
      return absl::InvalidArgumentError(absl::StrCat(path(), ": the header says ", count, " tokens of ", width,
                                                     " bytes, but ", bytes,
                                                     " bytes follow it; the file is torn or of another format"));
    }
  } else if (bytes % width != 0) {
    return absl::InvalidArgumentError(absl::StrCat(path(), ": ", bytes, " bytes are not a multiple of ", width,
                                                   ", the size of a token id; check data.token_type"));
  }
  if (size_ == 0) return absl::InvalidArgumentError(absl::StrCat(path(), ": the file holds no tokens"));
  return absl::OkStatus();
}

absl::Status TokenFile::CheckIds(int64_t vocabulary) const {
  const std::byte* ids = map_.data() + begin_;
  const int64_t bad = width_ == TokenWidth::kUint16 ? FirstAbove<uint16_t>(ids, size_, vocabulary)
                                                    : FirstAbove<uint32_t>(ids, size_, vocabulary);
  if (bad == size_) return absl::OkStatus();
  const int64_t id = width_ == TokenWidth::kUint16 ? Load<uint16_t>(ids, bad) : Load<uint32_t>(ids, bad);
  return absl::InvalidArgumentError(absl::StrCat(path(), ": token number ", bad, " is ", id,
                                                 ", but the model's vocabulary has ", vocabulary,
                                                 " ids; raise model.vocabulary, or check data.token_type"));
}

void TokenFile::Read(int64_t offset, absl::Span<int32_t> out) const {
  CHECK_GE(offset, 0);
  CHECK_LE(offset + static_cast<int64_t>(out.size()), size_) << path();
  const std::byte* ids = map_.data() + begin_;
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t index = offset + static_cast<int64_t>(i);
    switch (width_) {
      case TokenWidth::kByte: out[i] = std::to_integer<int32_t>(ids[index]); break;
      case TokenWidth::kUint16: out[i] = Load<uint16_t>(ids, index); break;
      case TokenWidth::kUint32: out[i] = static_cast<int32_t>(Load<uint32_t>(ids, index)); break;
    }
  }
}

}  // namespace sluice
