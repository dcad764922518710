#include "tests/gpu_sim/device_memory.h"

#include <sys/mman.h>

#include <iterator>

#include "base/check.h"
#include "tests/gpu_sim/memory.h"

namespace gpu_sim {
namespace {

std::byte* AllocatePinned(int64_t bytes) {
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return mapped == MAP_FAILED ? nullptr : static_cast<std::byte*>(mapped);
}

}  // namespace

DeviceMemory::~DeviceMemory() {
  while (!live_.empty()) Free(live_.begin()->first, std::source_location::current());
}

const Allocation* DeviceMemory::Allocate(int device, int64_t bytes, const std::source_location& site) {
  std::byte* const data = device == Allocation::kPinned ? AllocatePinned(bytes) : AllocateBytes(device, bytes, site);
  if (data == nullptr) return nullptr;
  return &live_.emplace(data, Allocation{device, data, bytes, site}).first->second;
}

void DeviceMemory::Free(const void* data, const std::source_location& site) {
  const auto found = live_.find(static_cast<const std::byte*>(data));
  CHECK(found != live_.end()) << "not live";
  const Allocation& allocation = found->second;
  if (allocation.device == Allocation::kPinned) {
    munmap(allocation.data, allocation.bytes);
  } else {
    FreeBytes(allocation.data, site);
  }
  live_.erase(found);
}

const Allocation* DeviceMemory::Find(const void* data, int64_t bytes) const {
  const auto* begin = static_cast<const std::byte*>(data);
  auto after = live_.upper_bound(begin);
  if (after == live_.begin()) return nullptr;
  const Allocation& allocation = std::prev(after)->second;
  return begin + bytes <= allocation.data + allocation.bytes ? &allocation : nullptr;
}

}  // namespace gpu_sim
