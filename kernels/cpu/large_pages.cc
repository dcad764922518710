#include "kernels/cpu/large_pages.h"

#include <sys/mman.h>

#include "base/check.h"

namespace sluice::cpu {
namespace {

constexpr int64_t kSmallPage = 4096;

int64_t Mapped(int64_t bytes) { return (bytes + kSmallPage - 1) / kSmallPage * kSmallPage; }

}  // namespace

std::byte* MapLargePages(int64_t bytes) {
  // One large page more, so that an aligned piece lies within; what is around it goes back at once.
  const int64_t wanted = Mapped(bytes), whole = wanted + kLargePage;
  void* const mapped = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(mapped);
  const int64_t before = -reinterpret_cast<intptr_t>(begin) & (kLargePage - 1), after = whole - wanted - before;
  if (before > 0) CHECK_EQ(munmap(begin, before), 0);
  if (after > 0) CHECK_EQ(munmap(begin + before + wanted, after), 0);
  madvise(begin + before, wanted, MADV_HUGEPAGE);  // without large pages small ones do
  return begin + before;
}

void UnmapLargePages(std::byte* data, int64_t bytes) { CHECK_EQ(munmap(data, Mapped(bytes)), 0); }

}  // namespace sluice::cpu
