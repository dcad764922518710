#include "tests/gpu_sim/pinned_memory.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

#include "base/check.h"

namespace gpu_sim {
namespace {

constexpr uintptr_t kPage = 4096;
constexpr uintptr_t kSpaceBytes = uintptr_t{1} << 40;  // of addresses, which are given out once

uintptr_t Floor(uintptr_t at) { return at / kPage * kPage; }
uintptr_t Ceiling(uintptr_t at) { return Floor(at + kPage - 1); }

// The program's addresses, and after them the simulator's.
struct Space {
  uintptr_t begin;
  std::mutex mutex;
  uintptr_t used = 0;

  Space() {
    void* data = mmap(nullptr, 2 * kSpaceBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(data != MAP_FAILED) << "the simulated GPU needs 2 TiB of addresses: lift `ulimit -v`";
    begin = reinterpret_cast<uintptr_t>(data);
  }
  bool Has(const void* data) const { return reinterpret_cast<uintptr_t>(data) - begin < kSpaceBytes; }
};

Space& TheSpace() {
  static auto* space = new Space;
  return *space;
}

std::atomic<PinnedListener*> the_listener{nullptr};

bool MapTwice(uintptr_t at, uintptr_t bytes) {
  const int file = memfd_create("pinned", 0);
  if (file < 0) return false;
  bool mapped = ftruncate(file, static_cast<off_t>(bytes)) == 0;
  for (uintptr_t to : {at, at + kSpaceBytes}) {
    mapped = mapped && mmap(reinterpret_cast<void*>(to), bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file,
                            0) != MAP_FAILED;
  }
  close(file);
  return mapped;
}

}  // namespace

std::byte* AllocatePinned(int64_t bytes) {
  Space& space = TheSpace();
  std::lock_guard lock(space.mutex);
  const uintptr_t pages = Ceiling(static_cast<uintptr_t>(bytes));
  if (pages + kPage > kSpaceBytes - space.used) return nullptr;
  const uintptr_t at = space.begin + space.used;
  space.used += pages + kPage;  // a closed page lies between two
  return MapTwice(at, pages) ? reinterpret_cast<std::byte*>(at) : nullptr;
}

void FreePinned(std::byte* data, int64_t bytes) {
  for (std::byte* view : {data, data + kSpaceBytes}) {
    void* closed = mmap(view, Ceiling(static_cast<uintptr_t>(bytes)), PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    CHECK(closed == view);
  }
}

bool IsPinned(const void* data) { return TheSpace().Has(data); }

std::byte* PinnedStorageOf(const void* data) {
  return const_cast<std::byte*>(static_cast<const std::byte*>(data)) + kSpaceBytes;
}

void SetHostAccess(uintptr_t begin, uintptr_t end, HostAccess access) {
  const int protection = access == HostAccess::kAll    ? PROT_READ | PROT_WRITE
                         : access == HostAccess::kRead ? PROT_READ
                                                       : PROT_NONE;
  const uintptr_t first = Floor(begin);
  CHECK_EQ(mprotect(reinterpret_cast<void*>(first), Ceiling(end) - first, protection), 0);
}

void SetPinnedListener(PinnedListener* listener) { the_listener = listener; }

bool HandlePinnedFault(void* address, void* context) {
  PinnedListener* listener = the_listener;
  if (listener == nullptr || !IsPinned(address)) return false;
  const auto& registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
  const bool writes = (registers[REG_ERR] & 2) != 0;  // the page fault's error code
  const auto at = reinterpret_cast<uintptr_t>(address);
  listener->OnHostAccess(at, writes, reinterpret_cast<void*>(registers[REG_RIP]));
  // Fails where nothing is mapped: the fault then comes again, without a handler.
  return mprotect(reinterpret_cast<void*>(Floor(at)), kPage, PROT_READ | PROT_WRITE) == 0;
}

}  // namespace gpu_sim
