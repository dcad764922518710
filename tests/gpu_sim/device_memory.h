// The memory that a machine has given out, of its devices (memory.h) and pinned on the host. Threads: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <source_location>

namespace gpu_sim {

struct Allocation {
  static constexpr int kPinned = -1;  // host memory, which is its own storage
  int device = kPinned;
  std::byte* data = nullptr;
  int64_t bytes = 0;
  std::source_location site;
};

class DeviceMemory {
 public:
  ~DeviceMemory();
  // Null if this machine has no more.
  const Allocation* Allocate(int device, int64_t bytes, const std::source_location& site);
  // REQUIRES: live.
  void Free(const void* data, const std::source_location& site);
  // The allocation that has all of these bytes, or null.
  const Allocation* Find(const void* data, int64_t bytes) const;

 private:
  std::map<const std::byte*, Allocation> live_;
};

}  // namespace gpu_sim
