// Byte-pair encoding (Sennrich, Haddow, Birch, "Neural machine translation of rare words with subword units", 2016)
// over bytes: a piece of text begins as its bytes' tokens; of all neighbours that a merge joins, the one of lowest rank
// is joined, the leftmost first, until none is left.
//
// Threads: BytePairs is immutable; a BytePairEncoder belongs to one thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

class BytePairs {
 public:
  struct Merge {
    int32_t rank = 0;
    int32_t token = 0;  // what the two become
  };
  // tokens[id]: its bytes; merges in order of rank, each two ids. `whole_pieces`: a piece that is a token is that one,
  // whatever the merges ("ignore_merges"). INVALID_ARGUMENT: a printable ASCII character without a token, a merge whose
  // result is none.
  static absl::StatusOr<BytePairs> Create(const std::vector<std::string>& tokens,
                                          const std::vector<std::pair<int32_t, int32_t>>& merges, bool whole_pieces);

  // -1: some vocabularies have no token for bytes that their training text didn't have.
  int32_t TokenOf(unsigned char byte) const { return byte_tokens_[byte]; }
  const Merge* Find(int32_t left, int32_t right) const {
    const auto found = merges_.find(Key(left, right));
    return found == merges_.end() ? nullptr : &found->second;
  }
  // The token of a whole piece; -1: none, or not asked for.
  int32_t WholePiece(absl::string_view piece) const {
    const auto found = whole_pieces_.find(piece);
    return found == whole_pieces_.end() ? -1 : found->second;
  }

 private:
  static uint64_t Key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  std::array<int32_t, 256> byte_tokens_{};
  absl::flat_hash_map<uint64_t, Merge> merges_;
  absl::flat_hash_map<std::string, int32_t> whole_pieces_;  // empty: not asked for
};

class BytePairEncoder {
 public:
  explicit BytePairEncoder(const BytePairs& pairs) : pairs_(pairs) {}
  // Appends the tokens of a piece; bytes without one are left out, as Hugging Face's library does. Time grows as n log
  // n in its bytes; pieces met lately are looked up.
  void Encode(absl::string_view piece, std::vector<int32_t>* tokens);

 private:
  struct Symbol {
    int32_t token = -1;  // -1: joined to its left neighbour
    int32_t previous = -1;
    int32_t next = -1;
  };
  struct Candidate {
    int32_t rank = 0;
    int32_t place = 0;  // of the left symbol
    int32_t left = 0, right = 0;
    // For a heap whose top is the lowest rank, and of these the leftmost.
    friend bool operator<(const Candidate& a, const Candidate& b) {
      return std::pair(a.rank, a.place) > std::pair(b.rank, b.place);
    }
  };
  void Merge(absl::string_view piece);
  void Consider(int32_t place);

  const BytePairs& pairs_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> heap_;
  // Words repeat: of short pieces the tokens are kept, as {first, count} in one vector.
  absl::flat_hash_map<std::string, std::pair<uint32_t, uint32_t>> known_;
  std::vector<int32_t> known_tokens_;
};

}  // namespace sluice
