#include "tests/gpu_sim/pinned_use.h"

#include <algorithm>

namespace gpu_sim {
namespace {

constexpr uintptr_t kPage = 4096;

bool Overlap(OrderCheck::Bytes a, OrderCheck::Bytes b) { return a.begin < b.end && b.begin < a.end; }

}  // namespace

void PinnedUse::Begin(const Use& use) {
  CloseAgain();
  uses_.push_back(use);
  Protect(use.bytes);
}

void PinnedUse::End(const std::function<bool(const Use& use)>& ended) {
  CloseAgain();
  const auto first = std::stable_partition(uses_.begin(), uses_.end(), [&](const Use& use) { return !ended(use); });
  const std::vector<Use> gone(first, uses_.end());
  uses_.erase(first, uses_.end());
  for (const Use& use : gone) Protect(use.bytes);
}

HostAccess PinnedUse::AccessOf(uintptr_t page) const {
  HostAccess access = HostAccess::kAll;
  for (const Use& use : uses_) {
    if (!Overlap(use.bytes, {page, page + kPage})) continue;
    access = std::min(access, use.writes ? HostAccess::kNone : HostAccess::kRead);
  }
  return access;
}

void PinnedUse::Protect(OrderCheck::Bytes bytes) const {
  uintptr_t begin = bytes.begin / kPage * kPage;
  while (begin < bytes.end) {
    const HostAccess access = AccessOf(begin);
    uintptr_t end = begin + kPage;
    while (end < bytes.end && AccessOf(end) == access) end += kPage;
    SetHostAccess(begin, end, access);
    begin = end;
  }
}

void PinnedUse::CloseAgain() {
  for (uintptr_t address : open_) Protect({address, address + 1});
  open_.clear();
}

std::optional<PinnedUse::Use> PinnedUse::Touch(uintptr_t address, bool writes) {
  open_.push_back(address);
  for (const Use& use : uses_) {
    if (address >= use.bytes.begin && address < use.bytes.end && (writes || use.writes)) return use;
  }
  return std::nullopt;
}

}  // namespace gpu_sim
