#include "tests/gpu_sim/memory.h"

#include <sys/mman.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "tests/gpu_sim/pinned_memory.h"
#include "tests/gpu_sim/shadow.h"

namespace gpu_sim {
namespace {

constexpr uintptr_t kPage = 4096;
// What cudaMalloc promises, and no more, so that nobody can rely on pages.
constexpr uintptr_t kAlignment = 256;

struct Allocation {
  int device = 0;
  int64_t bytes = 0;
  std::source_location allocated;
  bool live = true;
  std::source_location freed;
};

struct State {
  std::mutex mutex;
  std::map<uintptr_t, Allocation> allocations;  // by offset in the arena, live and freed
  uintptr_t end = Shadow::kDevice;              // of what has been given out
};

State& TheState() {
  static auto* state = new State;
  return *state;
}

struct sigaction previous_action;

void OnFault(int signal, siginfo_t* info, void* context) {
  if (HandlePinnedFault(info->si_addr, context)) return;
  const Shadow& shadow = Shadow::Get();
  if (shadow.IsClosed(info->si_addr)) {
    std::fputs(absl::StrCat("gpu_sim: host code touched device memory, ", DescribeAddress(info->si_addr),
                            ". Only copies on a stream (cudaMemcpyAsync) and kernels reach it.\n")
                   .c_str(),
               stderr);
  } else if (shadow.OffsetOf(info->si_addr) < Shadow::kDevice) {
    std::fprintf(stderr, "gpu_sim: a CUDA thread used more than %zu bytes of stack\n", Shadow::kStackBytes);
  }
  sigaction(signal, &previous_action, nullptr);  // the same access faults again, without us
}

void CatchFaults() {
  struct sigaction action = {};
  action.sa_sigaction = OnFault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;  // a CUDA thread's own stack may be full
  CHECK_EQ(sigaction(SIGSEGV, &action, &previous_action), 0);
}

std::string Place(const std::source_location& site) { return absl::StrCat(site.file_name(), ":", site.line()); }

uintptr_t PagesEnd(uintptr_t offset, int64_t bytes) {
  return (offset + static_cast<uintptr_t>(bytes) + kPage - 1) / kPage * kPage;
}

uintptr_t OffsetOfEither(const void* address) { return Shadow::Get().OffsetOf(StorageOf(address)); }

// The allocation that the offset lies in or after, with where it begins; null: none.
const std::pair<const uintptr_t, Allocation>* AllocationBefore(const State& state, uintptr_t offset) {
  const auto after = state.allocations.upper_bound(offset);
  return after == state.allocations.begin() ? nullptr : &*std::prev(after);
}

}  // namespace

std::byte* AllocateBytes(int device, int64_t bytes, const std::source_location& site) {
  CHECK_GT(bytes, 0);
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  if (state.allocations.empty()) CatchFaults();
  // A closed page at least lies between two allocations, and a start is aligned to nothing more than promised.
  const uintptr_t offset = state.end + kPage + kAlignment;
  if (static_cast<uintptr_t>(bytes) > Shadow::kArenaBytes - offset - kPage) return nullptr;
  const Shadow& shadow = Shadow::Get();
  const uintptr_t first = offset - kAlignment, end = PagesEnd(offset, bytes);
  if (mprotect(shadow.arena() + first, end - first, PROT_READ | PROT_WRITE) != 0) return nullptr;
  state.allocations.emplace(offset, Allocation{.device = device, .bytes = bytes, .allocated = site});
  state.end = end;
  return shadow.closed() + offset;
}

void FreeBytes(const void* data, const std::source_location& site) {
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  const uintptr_t offset = OffsetOfEither(data);
  const auto found = state.allocations.find(offset);
  CHECK(found != state.allocations.end() && found->second.live);
  Allocation& allocation = found->second;
  allocation.live = false;
  allocation.freed = site;
  Shadow::Get().Drop(offset, allocation.bytes);
  const uintptr_t first = offset - kAlignment, end = PagesEnd(offset, allocation.bytes);
  std::byte* const pages = Shadow::Get().arena() + first;
  CHECK(mmap(pages, end - first, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == pages);
}

std::byte* StorageOf(const void* data) {
  const Shadow& shadow = Shadow::Get();
  auto* bytes = const_cast<std::byte*>(static_cast<const std::byte*>(data));
  return shadow.IsClosed(data) ? shadow.arena() + (bytes - shadow.closed()) : bytes;
}

void TranslateToStorage(std::byte* arguments, size_t bytes) {
  for (size_t at = 0; at + sizeof(void*) <= bytes; at += sizeof(void*)) {
    void* word;
    std::memcpy(&word, arguments + at, sizeof(word));
    word = StorageOf(word);
    std::memcpy(arguments + at, &word, sizeof(word));
  }
}

void MarkWritten(const LaunchRegion& region) {
  const Shadow& shadow = Shadow::Get();
  const std::byte* const data = StorageOf(region.data);
  if (!shadow.Contains(data)) return;
  for (int64_t row = 0; row < region.rows; ++row) {
    shadow.SetWritten(shadow.OffsetOf(data + row * region.stride), region.bytes, true);
  }
}

AddressInfo FindAddress(const void* address) {
  const uintptr_t offset = OffsetOfEither(address);
  if (offset >= Shadow::kArenaBytes) return {};
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  const auto* found = AllocationBefore(state, offset);
  if (found == nullptr) return {.kind = AddressKind::kGap};
  const auto& [begin, allocation] = *found;
  const int64_t available = allocation.bytes - static_cast<int64_t>(offset - begin);
  if (available <= 0) return {.kind = AddressKind::kGap};
  return {.kind = allocation.live ? AddressKind::kLive : AddressKind::kFreed,
          .device = allocation.device,
          .available = available};
}

std::string DescribeAddress(const void* address) {
  const uintptr_t offset = OffsetOfEither(address);
  if (offset >= Shadow::kArenaBytes) {
    return absl::StrCat("host memory at 0x", absl::Hex(reinterpret_cast<uintptr_t>(address)));
  }
  if (offset < Shadow::kSharedBytes) return absl::StrCat("byte ", offset, " of shared memory");
  State& state = TheState();
  std::lock_guard lock(state.mutex);
  const auto* found = AllocationBefore(state, offset);
  if (found == nullptr) return "device memory before all allocations";
  const auto& [begin, allocation] = *found;
  const int64_t at = static_cast<int64_t>(offset - begin);
  const std::string freed = allocation.live ? "" : absl::StrCat(", freed at ", Place(allocation.freed));
  return absl::StrCat(at < allocation.bytes ? absl::StrCat("byte ", at, " of the ")
                                            : absl::StrCat(at - allocation.bytes, " bytes after the end of the "),
                      allocation.bytes, " bytes on device ", allocation.device, " allocated at ",
                      Place(allocation.allocated), freed);
}

}  // namespace gpu_sim
