// Pinned host memory. A program's pages of it can be closed while a copy uses them, so that host code that touches them
// is caught; the simulator's own copies go by a second mapping of the same memory.
//
// Threads: any.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpu_sim {

// Whole pages, zero. Null if there is no more memory.
std::byte* AllocatePinned(int64_t bytes);
// REQUIRES: of AllocatePinned, with the same size.
void FreePinned(std::byte* data, int64_t bytes);
bool IsPinned(const void* data);  // live or not
// The simulator's own address of the same byte.
std::byte* PinnedStorageOf(const void* data);

// What host code may do with these pages.
enum class HostAccess : uint8_t { kNone, kRead, kAll };
void SetHostAccess(uintptr_t begin, uintptr_t end, HostAccess access);

// Told when host code does what it may not, on its thread, before it goes on with the page open. May use what any
// function may.
class PinnedListener {
 public:
  virtual void OnHostAccess(uintptr_t address, bool writes, void* instruction) = 0;

 protected:
  ~PinnedListener() = default;
};
void SetPinnedListener(PinnedListener* listener);

// For the handler of faults (memory.cc): false if the address is none of this memory's. `context` is the signal's.
bool HandlePinnedFault(void* address, void* context);

}  // namespace gpu_sim
