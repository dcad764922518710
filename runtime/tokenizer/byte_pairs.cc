#include "runtime/tokenizer/byte_pairs.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr size_t kKnownBytes = 48;        // of a piece that is kept
constexpr size_t kKnownPieces = 1 << 17;  // then all are forgotten

}  // namespace

absl::StatusOr<BytePairs> BytePairs::Create(const std::vector<std::string>& tokens,
                                            const std::vector<std::pair<int32_t, int32_t>>& merges, bool whole_pieces) {
  BytePairs made;
  absl::flat_hash_map<std::string, int32_t> ids;
  ids.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id].empty()) ids.emplace(tokens[id], static_cast<int32_t>(id));
  }
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = ids.find(std::string(1, static_cast<char>(byte)));
    if (found == ids.end() && absl::ascii_isprint(static_cast<unsigned char>(byte))) {
      return absl::InvalidArgumentError(
          absl::StrCat("the vocabulary has no token for the single byte ", byte, "; it isn't a byte-level one"));
    }
    made.byte_tokens_[byte] = found == ids.end() ? -1 : found->second;
  }
  made.merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto [left, right] = merges[rank];
    const auto joined = ids.find(absl::StrCat(tokens[left], tokens[right]));
    if (joined == ids.end()) {
      return absl::InvalidArgumentError(absl::StrCat("merge ", rank, " joins the tokens ", left, " and ", right,
                                                     " to one that the vocabulary doesn't have"));
    }
    made.merges_.try_emplace(Key(left, right), BytePairs::Merge{static_cast<int32_t>(rank), joined->second});
  }
  if (whole_pieces) made.whole_pieces_ = std::move(ids);
  return made;
}

void BytePairEncoder::Encode(absl::string_view piece, std::vector<int32_t>* tokens) {
  const bool keep = piece.size() <= kKnownBytes;
  if (keep) {
    if (const auto found = known_.find(piece); found != known_.end()) {
      const auto first = known_tokens_.begin() + found->second.first;
      tokens->insert(tokens->end(), first, first + found->second.second);
      return;
    }
  }
  const size_t begin = tokens->size();
  if (const int32_t whole = pairs_.WholePiece(piece); whole >= 0) {
    tokens->push_back(whole);
  } else {
    Merge(piece);
    for (const Symbol& symbol : symbols_) {
      if (symbol.token >= 0) tokens->push_back(symbol.token);
    }
  }
  if (!keep) return;
  if (known_.size() == kKnownPieces) {
    known_.clear();
    known_tokens_.clear();
  }
  known_.emplace(piece,
                 std::pair(static_cast<uint32_t>(known_tokens_.size()), static_cast<uint32_t>(tokens->size() - begin)));
  known_tokens_.insert(known_tokens_.end(), tokens->begin() + static_cast<int64_t>(begin), tokens->end());
}

void BytePairEncoder::Merge(absl::string_view piece) {
  symbols_.clear();
  heap_.clear();
  for (const char byte : piece) {
    const auto i = static_cast<int32_t>(symbols_.size());
    const int32_t token = pairs_.TokenOf(static_cast<unsigned char>(byte));
    if (token >= 0) symbols_.push_back({token, i - 1, i + 1});
  }
  if (!symbols_.empty()) symbols_.back().next = -1;
  for (size_t i = 0; i < symbols_.size(); ++i) Consider(static_cast<int32_t>(i));
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    const Candidate best = heap_.back();
    heap_.pop_back();
    Symbol& left = symbols_[best.place];
    // Something was joined there meanwhile: what is there now was considered when that was.
    if (left.token != best.left || left.next < 0 || symbols_[left.next].token != best.right) continue;
    Symbol& right = symbols_[left.next];
    left.token = pairs_.Find(best.left, best.right)->token;
    right.token = -1;
    left.next = right.next;
    if (left.next >= 0) symbols_[left.next].previous = best.place;
    Consider(best.place);
    if (left.previous >= 0) Consider(left.previous);
  }
}

// Puts the symbol at `place` and its right neighbour on the heap, if a merge joins them.
void BytePairEncoder::Consider(int32_t place) {
  const Symbol& left = symbols_[place];
  if (left.next < 0) return;
  const int32_t right = symbols_[left.next].token;
  const BytePairs::Merge* const merge = pairs_.Find(left.token, right);
  if (merge == nullptr) return;
  heap_.push_back({merge->rank, place, left.token, right});
  std::push_heap(heap_.begin(), heap_.end());
}

}  // namespace sluice
