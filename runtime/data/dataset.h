// The text of a job: what it trains on and what it holds out, each a stream of tokens made of documents.
//
// Immutable once opened; may be read from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/config/job.h"
#include "runtime/data/token_file.h"

namespace sluice {

// The texts that a path stands for: a file is itself; a folder is its files in order of their names, hidden and empty ones
// left out. Errors: what can't be listed; a folder without files.
absl::StatusOr<std::vector<std::string>> TextFiles(const std::string& path);

// Documents one after another. The files outlive it.
class TokenStream {
 public:
  struct Piece {
    const TokenFile* file = nullptr;
    int64_t offset = 0;  // of its first token in the file
    int64_t size = 0;
    int64_t begin = 0;  // of its first token in the stream
  };
  // A piece is a document (of token files: a file, with documents ended by a token inside).
  void Append(const TokenFile* file, int64_t offset, int64_t size);
  int64_t size() const { return size_; }
  absl::Span<const Piece> pieces() const { return pieces_; }
  // stream[offset ... offset + out.size()) -> out; `piece_of` gets the number of the piece of each token. Both equally long.
  // REQUIRES: within the stream.
  void Read(int64_t offset, absl::Span<int32_t> out, absl::Span<int32_t> piece_of) const;

 private:
  std::vector<Piece> pieces_;
  int64_t size_ = 0;
};

class Dataset {
 public:
  // Opens the files of a job and splits off what is held out. Errors name the file, or say how many tokens there are and how many
  // a row of `sequence` tokens needs (sequence + 1).
  static absl::StatusOr<Dataset> Open(const DataConfig& config, int64_t vocabulary, int64_t sequence);

  const TokenStream& training() const { return training_; }
  const TokenStream& held_out() const { return held_out_; }  // may be empty
  const std::vector<std::string>& held_out_names() const { return held_out_names_; }

 private:
  std::vector<std::unique_ptr<TokenFile>> files_;
  TokenStream training_;
  TokenStream held_out_;
  std::vector<std::string> held_out_names_;
};

}  // namespace sluice
