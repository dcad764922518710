// The memory of all simulated devices. A program holds addresses of closed pages: host code that touches them dies
// there, told whose memory it is. What they stand for, the storage, lies elsewhere (shadow.h), and the simulator goes
// there for the program's copies, kernels and library calls.
//
// Threads: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>

#include "tests/gpu_sim/include/gpu_sim_launch.h"

namespace gpu_sim {

// Null if the address space of device memory (4 TiB) is used up: no address is given twice, so use after free is known
// for ever. The bytes are 0 and count as never written.
std::byte* AllocateBytes(int device, int64_t bytes, const std::source_location& site);
// Gives the storage back to the system. REQUIRES: data is of AllocateBytes, and live.
void FreeBytes(const void* data, const std::source_location& site);

// Where the bytes of device memory are; any other address stands for itself.
std::byte* StorageOf(const void* data);
// Every word that is an address of device memory becomes its storage's: a kernel's arguments.
void TranslateToStorage(std::byte* arguments, size_t bytes);

// What a copy, a memset, a kernel's body or a library's call has written. Takes either address; host memory is passed
// over.
void MarkWritten(const LaunchRegion& region);

enum class AddressKind : uint8_t { kHost, kGap, kLive, kFreed };
struct AddressInfo {
  AddressKind kind = AddressKind::kHost;
  int device = 0;
  int64_t available = 0;  // bytes from here to the allocation's end
};
// Of either address of device memory.
AddressInfo FindAddress(const void* address);
// "byte 12 of the 4096 bytes on device 1 allocated at f.cc:12, freed at f.cc:40", "8 bytes after the end of the 4096
// ...".
std::string DescribeAddress(const void* address);

}  // namespace gpu_sim
