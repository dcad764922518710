#include "runtime/checkpoint/checksum.h"

#include "base/check.h"
#include "xxhash.h"

namespace sluice {

Checksum::Checksum() : state_(XXH3_createState()) {
  CHECK(state_ != nullptr) << "no memory for a checksum";
  Reset();
}

void Checksum::Add(absl::Span<const std::byte> bytes) { XXH3_64bits_update(state_.get(), bytes.data(), bytes.size()); }

uint64_t Checksum::Value() const { return XXH3_64bits_digest(state_.get()); }

void Checksum::Reset() { XXH3_64bits_reset(state_.get()); }

void Checksum::Free::operator()(XXH3_state_s* state) const { XXH3_freeState(state); }

uint64_t ChecksumOf(absl::Span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

uint64_t ChecksumOf(absl::string_view text) { return XXH3_64bits(text.data(), text.size()); }

}  // namespace sluice
