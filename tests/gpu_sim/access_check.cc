#include "tests/gpu_sim/access_check.h"

#include <link.h>

#include <algorithm>

#include "tests/gpu_sim/memory.h"

namespace gpu_sim {
namespace {

// Tables of constants lie in the program's read-only segments; on a GPU they are part of the kernel.
bool IsConstant(const void* address) {
  struct Search {
    uintptr_t address;
    bool found = false;
  } search{reinterpret_cast<uintptr_t>(address)};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto& search = *static_cast<Search*>(data);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& segment = info->dlpi_phdr[i];
          const bool constant =
              segment.p_type == PT_GNU_RELRO || (segment.p_type == PT_LOAD && !(segment.p_flags & PF_W));
          if (constant && search.address - info->dlpi_addr - segment.p_vaddr < segment.p_memsz) search.found = true;
        }
        return 0;
      },
      &search);
  return search.found;
}

}  // namespace

constinit thread_local AccessCheck* active_access_check = nullptr;

void AccessCheck::Check(const void* address, int64_t bytes, AccessKind kind, const void* pc) {
  const uintptr_t offset = shadow_.OffsetOf(address);
  if (offset - Shadow::kStack < Shadow::kDevice - Shadow::kStack) return;
  if (offset >= Shadow::kArenaBytes) {
    if (kind != AccessKind::kRead || !IsConstant(address)) {
      Find({.kind = FindingKind::kNoMemory, .access = AccessOf(address, bytes, kind, pc)});
    }
    return;
  }
  for (int64_t done = 0; done < bytes;) {
    const uintptr_t at = offset + done;
    const int count = static_cast<int>(std::min<int64_t>(bytes - done, Shadow::kLine - at % Shadow::kLine));
    switch (kind) {
      case AccessKind::kRead:
        CheckLine<AccessKind::kRead>(at, count, pc);
        break;
      case AccessKind::kWrite:
        CheckLine<AccessKind::kWrite>(at, count, pc);
        break;
      case AccessKind::kAtomic:
        CheckLine<AccessKind::kAtomic>(at, count, pc);
        break;
    }
    done += count;
  }
}

// Not declared: because it isn't there at all, or the launcher forgot it.
void AccessCheck::FindUndeclared(const Access& access) {
  const AddressInfo info = FindAddress(access.address);
  const bool there = info.kind == AddressKind::kLive && info.available >= access.bytes;
  Find({.kind = there ? FindingKind::kUndeclared : FindingKind::kNoMemory, .access = access});
}

// Looks for the earlier access among the last ones: that of exactly this record, or, of several readers, the latest by
// another thread.
void AccessCheck::FindRace(const Access& access, uint32_t other, AccessKind other_kind) {
  Finding finding{.kind = FindingKind::kRace, .access = access, .earlier = {.record = other, .kind = other_kind}};
  const auto* const begin = static_cast<const std::byte*>(access.address);
  const uint64_t known = std::min(accesses_, kHistory);
  for (uint64_t back = 2; back <= known; ++back) {  // the last one is this access
    const Access& candidate = history_[(accesses_ - back) % kHistory];
    const auto* const address = static_cast<const std::byte*>(candidate.address);
    if (address >= begin + access.bytes || begin >= address + candidate.bytes) continue;
    if ((candidate.kind == AccessKind::kRead) != (other_kind == AccessKind::kRead)) continue;
    const bool is_it =
        Order::WhoOf(other) < Order::kThreads ? candidate.record == other : Order::WhoOf(candidate.record) != thread_;
    if (!is_it) continue;
    finding.earlier = candidate;
    break;
  }
  Find(finding);
}

void AccessCheck::Find(const Finding& finding) {
  const std::pair place(finding.kind, finding.access.pc);
  const bool known = std::find(found_.begin(), found_.end(), place) != found_.end();
  if (known && finding.kind != FindingKind::kNoMemory) return;
  found_.push_back(place);
  listener_->OnFinding(finding);
}

}  // namespace gpu_sim
