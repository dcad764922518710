#include "runtime/data/dataset.h"

#include <fnmatch.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "spdlog/spdlog.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kByteIds = 256;

bool Matches(const std::string& pattern, const std::string& path) {
  return fnmatch(pattern.c_str(), fs::path(path).filename().c_str(), 0) == 0 || pattern == path;
}

absl::StatusOr<std::vector<std::unique_ptr<TokenFile>>> OpenFiles(const DataConfig& config, int64_t vocabulary) {
  std::vector<std::unique_ptr<TokenFile>> files;
  if (!config.text.empty()) {
    if (vocabulary < kByteIds) {
      return absl::InvalidArgumentError(absl::StrCat("bytes of text need a vocabulary of 256 ids, but model.vocabulary is ",
                                                     vocabulary));
    }
    ASSIGN_OR_RETURN(const std::vector<std::string> paths, TextFiles(config.text));
    for (const std::string& path : paths) {
      ASSIGN_OR_RETURN(TokenFile file, TokenFile::OpenText(path));
      files.push_back(std::make_unique<TokenFile>(std::move(file)));
    }
    return files;
  }
  const auto width = config.token_type == TokenType::kUint16 ? TokenWidth::kUint16 : TokenWidth::kUint32;
  for (const std::string& path : config.tokens) {
    ASSIGN_OR_RETURN(TokenFile file, TokenFile::OpenTokens(path, width, vocabulary));
    files.push_back(std::make_unique<TokenFile>(std::move(file)));
  }
  return files;
}

absl::Status CheckPatterns(const DataConfig& config, absl::Span<const std::unique_ptr<TokenFile>> files) {
  for (const std::string& pattern : config.hold_out_files) {
    const bool found = std::any_of(files.begin(), files.end(), [&](const auto& f) { return Matches(pattern, f->path()); });
    if (!found) {
      return absl::InvalidArgumentError(
          absl::StrCat("data.hold_out.files: no file of the data is called or matches \"", pattern, "\"; the first is ",
                       fs::path(files[0]->path()).filename().string()));
    }
  }
  return absl::OkStatus();
}

absl::Status LongEnough(const TokenStream& stream, const char* which, int64_t sequence) {
  if (stream.size() > sequence) return absl::OkStatus();
  if (stream.size() == 0) {
    return absl::InvalidArgumentError("data.hold_out leaves nothing to train on; hold out fewer files or a smaller fraction");
  }
  return absl::InvalidArgumentError(absl::StrCat("the ", which, " has ", stream.size(),
                                                 " tokens, but one row of training.sequence: ", sequence, " needs ",
                                                 sequence + 1, "; give more text or a shorter sequence"));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> TextFiles(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return std::vector<std::string>{path};
  std::vector<std::string> files;
  for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name[0] == '.' || !entry->is_regular_file(error)) continue;
    if (entry->file_size(error) == 0) {
      spdlog::warn("{} is empty and left out", entry->path().string());
      continue;
    }
    files.push_back(entry->path().string());
  }
  if (error) return absl::UnavailableError(absl::StrCat(path, ": cannot list the folder: ", error.message()));
  if (files.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": the folder holds no files"));
  std::sort(files.begin(), files.end());
  return files;
}

void TokenStream::Append(const TokenFile* file, int64_t offset, int64_t size) {
  if (size <= 0) return;
  pieces_.push_back({file, offset, size, size_});
  size_ += size;
}

void TokenStream::Read(int64_t offset, absl::Span<int32_t> out, absl::Span<int32_t> piece_of) const {
  CHECK_GE(offset, 0);
  CHECK_LE(offset + static_cast<int64_t>(out.size()), size_);
  CHECK_EQ(out.size(), piece_of.size());
  auto piece = std::upper_bound(pieces_.begin(), pieces_.end(), offset,
                                [](int64_t value, const Piece& p) { return value < p.begin; }) - 1;
  size_t done = 0;
  for (; done < out.size(); ++piece) {
    const int64_t inside = offset + static_cast<int64_t>(done) - piece->begin;
    const auto count = std::min(out.size() - done, static_cast<size_t>(piece->size - inside));
    piece->file->Read(piece->offset + inside, out.subspan(done, count));
    std::fill_n(piece_of.begin() + done, count, static_cast<int32_t>(piece - pieces_.begin()));
    done += count;
  }
}

absl::StatusOr<Dataset> Dataset::Open(const DataConfig& config, int64_t vocabulary, int64_t sequence) {
  Dataset dataset;
  ASSIGN_OR_RETURN(dataset.files_, OpenFiles(config, vocabulary));
  RETURN_IF_ERROR(CheckPatterns(config, dataset.files_));
  std::vector<const TokenFile*> kept;
  int64_t total = 0;
  for (const auto& file : dataset.files_) {
    const bool out = std::any_of(config.hold_out_files.begin(), config.hold_out_files.end(),
                                 [&](const std::string& pattern) { return Matches(pattern, file->path()); });
    if (out) {
      dataset.held_out_.Append(file.get(), 0, file->size());
      dataset.held_out_names_.push_back(fs::path(file->path()).filename().string());
    } else {
      kept.push_back(file.get());
      total += file->size();
    }
  }
  // A fraction is the end of what is left, so that it may cut one file in two.
  int64_t train = total - static_cast<int64_t>(config.hold_out_fraction * static_cast<double>(total));
  for (const TokenFile* file : kept) {
    const int64_t head = std::min(train, file->size());
    dataset.training_.Append(file, 0, head);
    dataset.held_out_.Append(file, head, file->size() - head);
    train -= head;
  }
  RETURN_IF_ERROR(LongEnough(dataset.training_, "text to train on", sequence));
  if (dataset.held_out_.size() > 0) RETURN_IF_ERROR(LongEnough(dataset.held_out_, "held-out text", 1));
  return dataset;
}

}  // namespace sluice
