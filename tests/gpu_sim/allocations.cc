#include "tests/gpu_sim/allocations.h"

#include <iterator>

#include "base/check.h"
#include "tests/gpu_sim/memory.h"
#include "tests/gpu_sim/pinned_memory.h"

namespace gpu_sim {

Allocations::~Allocations() {
  while (!live_.empty()) Free(live_.begin()->first, std::source_location::current());
}

const LiveMemory* Allocations::Allocate(int device, int64_t bytes, const std::source_location& site) {
  std::byte* data = device == LiveMemory::kPinned ? AllocatePinned(bytes) : AllocateBytes(device, bytes, site);
  if (data == nullptr) return nullptr;
  return &live_.emplace(data, LiveMemory{device, data, bytes, site}).first->second;
}

void Allocations::Free(const void* data, const std::source_location& site) {
  const auto found = live_.find(static_cast<const std::byte*>(data));
  CHECK(found != live_.end()) << "not live";
  const LiveMemory& memory = found->second;
  if (memory.device == LiveMemory::kPinned) {
    FreePinned(memory.data, memory.bytes);
  } else {
    FreeBytes(memory.data, site);
  }
  live_.erase(found);
}

const LiveMemory* Allocations::Find(const void* data, int64_t bytes) const {
  const auto* begin = static_cast<const std::byte*>(data);
  const auto after = live_.upper_bound(begin);
  if (after == live_.begin()) return nullptr;
  const LiveMemory& memory = std::prev(after)->second;
  return begin + bytes <= memory.data + memory.bytes ? &memory : nullptr;
}

}  // namespace gpu_sim
