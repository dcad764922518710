#include "tests/gpu_sim/shadow.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace gpu_sim {
namespace {

constexpr uintptr_t kPage = 4096;

// Addresses without memory behind them until they are touched.
void* Reserve(uintptr_t bytes, int protection) {
  void* const data = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(data != MAP_FAILED) << "the simulated GPU needs " << (bytes >> 40)
                            << " TiB of addresses: lift `ulimit -v`, and vm.overcommit_memory must not be 2";
  return data;
}

// Calls update(line, bits) for the lines of a range: bits are those of its bytes in the line.
template <class Update>
void ForLines(uintptr_t offset, int64_t bytes, const Update& update) {
  for (const uintptr_t end = offset + bytes; offset < end;) {
    const uintptr_t first = offset % Shadow::kLine;
    const uintptr_t count = std::min<uintptr_t>(Shadow::kLine - first, end - offset);
    update(offset / Shadow::kLine, static_cast<uint16_t>(((1u << count) - 1) << first));
    offset += count;
  }
}

// Makes the range 0, and gives its whole pages back to the system.
void Zero(void* data, uintptr_t bytes) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data), end = begin + bytes;
  const uintptr_t first = (begin + kPage - 1) / kPage * kPage, last = end / kPage * kPage;
  if (first >= last) {
    std::memset(data, 0, bytes);
    return;
  }
  std::memset(data, 0, first - begin);
  std::memset(reinterpret_cast<void*>(last), 0, end - last);
  CHECK_EQ(madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED), 0);
}

}  // namespace

Shadow::Shadow()
    : closed_(reinterpret_cast<uintptr_t>(Reserve(kArenaBytes, PROT_NONE))),
      arena_(reinterpret_cast<uintptr_t>(Reserve(kArenaBytes, PROT_NONE))),
      touched_(static_cast<Touched*>(Reserve(kArenaBytes * sizeof(Touched), PROT_READ | PROT_WRITE))),
      declared_(static_cast<Declared*>(Reserve(kArenaBytes / kLine * sizeof(Declared), PROT_READ | PROT_WRITE))),
      written_(static_cast<uint16_t*>(Reserve(kArenaBytes / kLine * sizeof(uint16_t), PROT_READ | PROT_WRITE))) {
  CHECK_EQ(mprotect(arena(), kDevice, PROT_READ | PROT_WRITE), 0);
  for (int i = 0; i < kStacks; ++i) CHECK_EQ(mprotect(arena() + kStack + i * kStackBytes, kPage, PROT_NONE), 0);
}

void Shadow::SetWritten(uintptr_t offset, int64_t bytes, bool value) const {
  ForLines(offset, bytes, [&](uintptr_t line, uint16_t bits) {
    written_[line] = value ? written_[line] | bits : written_[line] & ~bits;
  });
}

void Shadow::SetDeclared(uintptr_t offset, int64_t bytes, bool write, bool value) const {
  ForLines(offset, bytes, [&](uintptr_t line, uint16_t bits) {
    uint16_t& declared = write ? declared_[line].write : declared_[line].read;
    declared = value ? declared | bits : declared & ~bits;
  });
}

void Shadow::Drop(uintptr_t offset, int64_t bytes) const {
  CHECK_EQ(offset % kLine, uintptr_t{0});
  const uintptr_t lines = (static_cast<uintptr_t>(bytes) + kLine - 1) / kLine;
  Zero(touched(offset), static_cast<uintptr_t>(bytes) * sizeof(Touched));
  Zero(written(offset), lines * sizeof(uint16_t));
}

void Shadow::DropTouched() const { Zero(touched_, kArenaBytes * sizeof(Touched)); }

}  // namespace gpu_sim
