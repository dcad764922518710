// The memory of simulated devices, and pinned host memory: what is live, and where it was allocated.
//
// A device's address is no address of this process: pages stay closed, and host code that touches one dies there, with
// the allocation named. What lies in device memory is kept at another address, its storage, which only the simulator
// knows: the arguments of kernels are translated when a launch runs. Addresses are given out once, so what is freed
// stays caught.
//
// Threads: translation by any; the rest one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <source_location>
#include <string>

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
  DeviceMemory();
  ~DeviceMemory();
  // Null if this machine has no more.
  const Allocation* Allocate(int device, int64_t bytes, const std::source_location& site);
  // REQUIRES: live.
  void Free(const void* data);
  // The allocation that has all of these bytes, or null.
  const Allocation* Find(const void* data, int64_t bytes) const;

 private:
  std::map<const std::byte*, Allocation> live_;
};

bool IsDeviceAddress(const void* data);  // live or not
// Where the bytes at a device's address are kept. Host addresses are their own.
std::byte* StorageOf(const void* data);
// Replaces each word that is a device's address, at multiples of 8 bytes.
void TranslateToStorage(std::byte* arguments, size_t bytes);

}  // namespace gpu_sim
