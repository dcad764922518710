#include "tests/gpu_sim/device_memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <mutex>

#include "base/check.h"

namespace gpu_sim {
namespace {

constexpr size_t kSpaceBytes = size_t{1} << 44;  // of addresses; memory is taken as it is used
constexpr int64_t kPage = 4096;
constexpr size_t kKnown = 1 << 16;

// Closed pages for the devices' addresses, and after them as many for their storage.
struct Space {
  std::byte* devices;
  std::byte* storage;
  std::atomic<size_t> used{0};

  Space() {
    void* begin = mmap(nullptr, 2 * kSpaceBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(begin != MAP_FAILED) << "the simulated GPU found no addresses: raise `ulimit -v`";
    devices = static_cast<std::byte*>(begin);
    storage = devices + kSpaceBytes;
  }
  bool Has(const void* data) const { return data >= devices && data < devices + kSpaceBytes; }
};

Space& TheSpace() {
  static Space* space = new Space;
  return *space;
}

// For the handler, which may not search a map: the last allocations, freed or not.
struct Known {
  std::byte* begin;
  std::byte* end;
  int device;
  std::source_location site;
};
Known known[kKnown];
std::atomic<size_t> known_count{0};

struct sigaction previous_action;

void OnClosedPage(int signal, siginfo_t* info, void* /*context*/) {
  const auto* address = static_cast<const std::byte*>(info->si_addr);
  char text[512];
  for (size_t i = 0; i < kKnown; ++i) {
    if (address < known[i].begin || address >= known[i].end) continue;
    const int length =
        snprintf(text, sizeof(text),
                 "gpu_sim: host code touched memory of device %d: byte %td of what %s:%u allocated\n", known[i].device,
                 address - known[i].begin, known[i].site.file_name(), static_cast<unsigned>(known[i].site.line()));
    if (write(STDERR_FILENO, text, length) < 0) break;
  }
  // As without this handler: the instruction runs again and ends the program.
  sigaction(signal, &previous_action, nullptr);
}

void InstallHandler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = OnClosedPage;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &previous_action);
  });
}

int64_t WholePages(int64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

}  // namespace

bool IsDeviceAddress(const void* data) { return TheSpace().Has(data); }

std::byte* StorageOf(const void* data) {
  auto* bytes = const_cast<std::byte*>(static_cast<const std::byte*>(data));
  return TheSpace().Has(data) ? bytes + kSpaceBytes : bytes;
}

void TranslateToStorage(std::byte* arguments, size_t bytes) {
  for (size_t at = 0; at + sizeof(void*) <= bytes; at += sizeof(void*)) {
    void* word;
    std::memcpy(&word, arguments + at, sizeof(word));
    word = StorageOf(word);
    std::memcpy(arguments + at, &word, sizeof(word));
  }
}

DeviceMemory::DeviceMemory() { InstallHandler(); }

DeviceMemory::~DeviceMemory() {
  while (!live_.empty()) Free(live_.begin()->first);
}

const Allocation* DeviceMemory::Allocate(int device, int64_t bytes, const std::source_location& site) {
  const int64_t pages = WholePages(bytes);
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  std::byte* data = nullptr;
  if (device == Allocation::kPinned) {
    void* mapped = mmap(nullptr, pages, PROT_READ | PROT_WRITE, kFlags, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    data = static_cast<std::byte*>(mapped);
  } else {
    // A closed page lies behind each allocation.
    Space& space = TheSpace();
    const size_t offset = space.used.fetch_add(pages + kPage);
    if (offset + pages + kPage > kSpaceBytes) return nullptr;
    data = space.devices + offset;
    if (mprotect(StorageOf(data), pages, PROT_READ | PROT_WRITE) != 0) return nullptr;
    known[known_count++ % kKnown] = {data, data + bytes, device, site};
  }
  return &live_.emplace(data, Allocation{device, data, bytes, site}).first->second;
}

void DeviceMemory::Free(const void* data) {
  const auto found = live_.find(static_cast<const std::byte*>(data));
  CHECK(found != live_.end()) << "not live";
  const Allocation& allocation = found->second;
  if (allocation.device == Allocation::kPinned) {
    munmap(allocation.data, WholePages(allocation.bytes));
  } else {
    constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    mmap(StorageOf(allocation.data), WholePages(allocation.bytes), PROT_NONE, kFlags, -1, 0);
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
