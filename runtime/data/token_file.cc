#include "runtime/data/token_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace sluice {
namespace {

// llm.c, dev/data/data_common.py: header of 256 int32.
constexpr int64_t kHeaderBytes = 256 * 4;
constexpr int32_t kMagicUint16 = 20240520;
constexpr int32_t kMagicUint32 = 20240801;

absl::Status SystemError(const std::string& path, const char* what) {
  return absl::ErrnoToStatus(errno, absl::StrCat(path, ": cannot ", what, " the file"));
}

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

TokenFile::TokenFile(TokenFile&& other) noexcept
    : path_(std::move(other.path_)),
      map_(std::exchange(other.map_, nullptr)),
      map_bytes_(other.map_bytes_),
      begin_(other.begin_),
      size_(other.size_),
      width_(other.width_) {}

TokenFile& TokenFile::operator=(TokenFile other) noexcept {
  std::swap(path_, other.path_);
  std::swap(map_, other.map_);
  std::swap(map_bytes_, other.map_bytes_);
  std::swap(begin_, other.begin_);
  std::swap(size_, other.size_);
  std::swap(width_, other.width_);
  return *this;
}

TokenFile::~TokenFile() {
  if (map_ != nullptr) munmap(map_, static_cast<size_t>(map_bytes_));
}

absl::StatusOr<TokenFile> TokenFile::Map(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return SystemError(path, "open");
  struct stat info;
  absl::Status status;
  void* map = MAP_FAILED;
  if (fstat(file, &info) != 0) {
    status = SystemError(path, "look at");
  } else if (!S_ISREG(info.st_mode)) {
    status = absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  } else if (info.st_size == 0) {
    status = absl::InvalidArgumentError(absl::StrCat(path, ": the file is empty"));
  } else if (map = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, file, 0); map == MAP_FAILED) {
    status = SystemError(path, "map");
  }
  close(file);
  if (!status.ok()) return status;
  TokenFile result;
  result.path_ = path;
  result.map_ = static_cast<std::byte*>(map);
  result.map_bytes_ = info.st_size;
  result.size_ = info.st_size;
  return result;
}

absl::StatusOr<TokenFile> TokenFile::OpenText(const std::string& path) { return Map(path); }

absl::StatusOr<TokenFile> TokenFile::OpenTokens(const std::string& path, TokenWidth headerless, int64_t vocabulary) {
  ASSIGN_OR_RETURN(TokenFile file, Map(path));
  RETURN_IF_ERROR(file.FindTokens(headerless));
  RETURN_IF_ERROR(file.CheckIds(vocabulary));
  return file;
}

absl::Status TokenFile::FindTokens(TokenWidth headerless) {
  const int32_t magic = map_bytes_ >= kHeaderBytes ? Load<int32_t>(map_, 0) : 0;
  const bool header = magic == kMagicUint16 || magic == kMagicUint32;
  width_ = magic == kMagicUint16 ? TokenWidth::kUint16 : magic == kMagicUint32 ? TokenWidth::kUint32 : headerless;
  begin_ = header ? kHeaderBytes : 0;
  const int64_t width = static_cast<int64_t>(width_);
  const int64_t bytes = map_bytes_ - begin_;
  size_ = bytes / width;
  if (header) {
    const int64_t count = Load<int32_t>(map_, 2);
    if (count != size_ || bytes % width != 0) {
      return absl::InvalidArgumentError(absl::StrCat(path_, ": the header says ", count, " tokens of ", width,
                                                     " bytes, but ", bytes,
                                                     " bytes follow it; the file is torn or of another format"));
    }
  } else if (bytes % width != 0) {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": ", bytes, " bytes are not a multiple of ", width,
                                                   ", the size of a token id; check data.token_type"));
  }
  if (size_ == 0) return absl::InvalidArgumentError(absl::StrCat(path_, ": the file holds no tokens"));
  return absl::OkStatus();
}

absl::Status TokenFile::CheckIds(int64_t vocabulary) const {
  const std::byte* ids = map_ + begin_;
  const int64_t bad = width_ == TokenWidth::kUint16 ? FirstAbove<uint16_t>(ids, size_, vocabulary)
                                                    : FirstAbove<uint32_t>(ids, size_, vocabulary);
  if (bad == size_) return absl::OkStatus();
  const int64_t id = width_ == TokenWidth::kUint16 ? Load<uint16_t>(ids, bad) : Load<uint32_t>(ids, bad);
  return absl::InvalidArgumentError(absl::StrCat(path_, ": token number ", bad, " is ", id,
                                                 ", but the model's vocabulary has ", vocabulary,
                                                 " ids; raise model.vocabulary, or check data.token_type"));
}

void TokenFile::Read(int64_t offset, absl::Span<int32_t> out) const {
  CHECK_GE(offset, 0);
  CHECK_LE(offset + static_cast<int64_t>(out.size()), size_) << path_;
  const std::byte* ids = map_ + begin_;
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
