// What memory is live, on devices and pinned on the host, and where it was allocated. Threads: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <source_location>

namespace gpu_sim {

struct LiveMemory {
  static constexpr int kPinned = -1;  // host memory
  int device = kPinned;
  std::byte* data = nullptr;
  int64_t bytes = 0;
  std::source_location site;
};

class Allocations {
 public:
  ~Allocations();
  // Null if this machine has no more.
  const LiveMemory* Allocate(int device, int64_t bytes, const std::source_location& site);
  // REQUIRES: live.
  void Free(const void* data, const std::source_location& site);
  // The allocation that has all of these bytes, or null.
  const LiveMemory* Find(const void* data, int64_t bytes) const;

 private:
  std::map<const std::byte*, LiveMemory> live_;
};

}  // namespace gpu_sim
