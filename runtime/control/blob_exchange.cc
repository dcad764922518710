#include "runtime/control/blob_exchange.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

// What one blob costs beside its bytes, in memory and in the answer's frame; generous.
constexpr int64_t kBlobOverheadBytes = 64;

}  // namespace

absl::StatusOr<std::optional<std::vector<std::string>>> BlobExchange::Add(int process, const std::string& name,
                                                                          std::string blob, Nanoseconds now) {
  const int64_t bytes = static_cast<int64_t>(blob.size() + name.size()) + kBlobOverheadBytes;
  if (bytes_ + bytes > bytes_max_) {
    return absl::ResourceExhaustedError(absl::StrCat("the blobs of exchange \"", name, "\" come to ", bytes_ + bytes,
                                                     " bytes and more; at most ", bytes_max_, " fit into a frame"));
  }
  Round& round = rounds_.try_emplace(name, Round{.since = now}).first->second;
  if (!round.blobs.emplace(process, std::move(blob)).second) {
    return absl::AlreadyExistsError(absl::StrCat("a second blob for exchange \"", name, "\""));
  }
  round.bytes += bytes;
  bytes_ += bytes;
  if (static_cast<int>(round.blobs.size()) < processes_) return std::nullopt;

  std::vector<std::string> blobs;
  for (auto& [from, given] : round.blobs) blobs.push_back(std::move(given));
  bytes_ -= round.bytes;
  rounds_.erase(name);
  return std::make_optional(std::move(blobs));
}

std::optional<BlobExchange::Late> BlobExchange::BegunBefore(Nanoseconds time) const {
  for (const auto& [name, round] : rounds_) {
    if (round.since >= time) continue;
    Late late{.name = name};
    for (int process = 0; process < processes_; ++process) {
      if (!round.blobs.contains(process)) late.missing.push_back(process);
    }
    return late;
  }
  return std::nullopt;
}

}  // namespace sluice
