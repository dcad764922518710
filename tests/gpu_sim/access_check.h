// Looks at every access to memory that a kernel makes, before it is made. Kernels are compiled with -fsanitize=thread,
// and the callbacks that the compiler inserts come here in place of ThreadSanitizer's library (sanitizer_callbacks.cc),
// as do the simulator's own accesses for a thread (asynchronous copies, matrices, atomics).
//
// Found are: memory that isn't there, isn't the device's or isn't declared by the launch; bytes read before anything
// wrote them; misaligned accesses; accesses that another thread's may race with.
//
// Threads: one.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "tests/gpu_sim/order.h"
#include "tests/gpu_sim/shadow.h"

namespace gpu_sim {

enum class AccessKind : uint8_t { kRead, kWrite, kAtomic };

struct Access {
  const void* address = nullptr;
  const void* pc = nullptr;
  uint32_t record = 0;  // Order's: when and by whom
  uint16_t bytes = 0;
  AccessKind kind = AccessKind::kRead;
};

enum class FindingKind : uint8_t { kNoMemory, kUndeclared, kNeverWritten, kMisaligned, kRace };

struct Finding {
  FindingKind kind;
  Access access;
  // Of a race: the earlier access; without a pc if it is too long ago.
  Access earlier;
};

class AccessCheck {
 public:
  // Hears of what is found, each kind at each place of the code once. Doesn't return from kNoMemory.
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void OnFinding(const Finding& finding) = 0;
  };
  AccessCheck() : history_(kHistory) {}
  void StartLaunch(Listener* listener) {
    listener_ = listener;
    found_.clear();
    order_.StartLaunch();
  }

  Order& order() { return order_; }
  // The thread of the block that the next accesses are of.
  void SetThread(uint32_t thread) { thread_ = thread; }
  // Any number of bytes at any address.
  void Check(const void* address, int64_t bytes, AccessKind kind, const void* pc);
  // 1, 2, 4, 8 or 16 bytes at a multiple of kAlignment, or that is found.
  template <int kBytes, AccessKind kKind, int kAlignment = kBytes>
  void CheckAligned(const void* address, const void* pc) {
    const uintptr_t offset = shadow_.OffsetOf(address);
    if (offset - Shadow::kStack < Shadow::kDevice - Shadow::kStack) return;  // a thread's own
    if (offset % kAlignment != 0) [[unlikely]]
      FindMisaligned(address, kBytes, kKind, pc);
    if (offset < Shadow::kArenaBytes && offset % Shadow::kLine + kBytes <= Shadow::kLine) {
      CheckLine<kKind>(offset, kBytes, pc);
    } else {
      Check(address, kBytes, kKind, pc);
    }
  }
  void FindMisaligned(const void* address, int bytes, AccessKind kind, const void* pc) {
    Find({.kind = FindingKind::kMisaligned, .access = AccessOf(address, bytes, kind, pc)});
  }
  void FindNoMemory(const void* address, int bytes, AccessKind kind, const void* pc) {
    Find({.kind = FindingKind::kNoMemory, .access = AccessOf(address, bytes, kind, pc)});
  }
  // cp.async: what it will write counts as never written until it lands.
  void MarkPending(const void* address, int64_t bytes) { shadow_.SetWritten(shadow_.OffsetOf(address), bytes, false); }

 private:
  static constexpr uint64_t kHistory = 1 << 16;  // accesses; a power of two

  Access AccessOf(const void* address, int64_t bytes, AccessKind kind, const void* pc) const {
    return {.address = address,
            .pc = pc,
            .record = Order::Record(order_.now(), thread_, kind == AccessKind::kAtomic),
            .bytes = static_cast<uint16_t>(bytes),
            .kind = kind};
  }
  // Within a line. Inlined, so that the number of bytes is a constant where the compiler's callback has one.
  template <AccessKind kKind>
  __attribute__((always_inline)) void CheckLine(uintptr_t offset, int bytes, const void* pc);
  template <AccessKind kKind>
  void CheckOrder(const Access& access, uintptr_t offset, int bytes);
  template <AccessKind kKind>
  Touched AfterAccess(const Access& access, Touched before, uint32_t since);

  void FindUndeclared(const Access& access);
  void FindRace(const Access& access, uint32_t other, AccessKind other_kind);
  void Find(const Finding& finding);

  Listener* listener_ = nullptr;
  const Shadow& shadow_ = Shadow::Get();
  Order order_;
  uint32_t thread_ = 0;
  uint64_t accesses_ = 0;
  std::vector<Access> history_;                             // the last ones, in a ring
  std::vector<std::pair<FindingKind, const void*>> found_;  // with the place
};

template <AccessKind kKind>
inline void AccessCheck::CheckLine(uintptr_t offset, int bytes, const void* pc) {
  const Access access = AccessOf(shadow_.arena() + offset, bytes, kKind, pc);
  const uint32_t bits = ((1u << bytes) - 1) << offset % Shadow::kLine;
  const Declared declared = *shadow_.declared(offset);
  const uint32_t allowed = kKind == AccessKind::kRead    ? declared.read
                           : kKind == AccessKind::kWrite ? declared.write
                                                         : declared.read & declared.write;
  if ((allowed & bits) != bits) [[unlikely]] {
    FindUndeclared(access);
    return;
  }
  uint16_t* const written = shadow_.written(offset);
  if (kKind != AccessKind::kWrite && (*written & bits) != bits) [[unlikely]] {
    Find({.kind = FindingKind::kNeverWritten, .access = access});
  }
  if (kKind != AccessKind::kRead) *written |= bits;
  history_[accesses_++ % kHistory] = access;
  CheckOrder<kKind>(access, offset, bytes);
}

template <AccessKind kKind>
inline void AccessCheck::CheckOrder(const Access& access, uintptr_t offset, int bytes) {
  const uint32_t since = offset < Shadow::kSharedBytes ? order_.block_start() : order_.launch_start();
  Touched* const touched = shadow_.touched(offset);
  const Touched first = touched[0];
  bool alike = true;  // mostly
  for (int i = 1; i < bytes; ++i) alike &= touched[i] == first;
  if (alike) [[likely]] {
    const Touched after = AfterAccess<kKind>(access, first, since);
    for (int i = 0; i < bytes; ++i) touched[i] = after;
  } else {
    for (int i = 0; i < bytes; ++i) touched[i] = AfterAccess<kKind>(access, touched[i], since);
  }
}

template <AccessKind kKind>
inline Touched AccessCheck::AfterAccess(const Access& access, Touched before, uint32_t since) {
  // Again by the same thread, and nobody in between.
  if (kKind == AccessKind::kRead ? before.read == access.record : before.write == access.record && before.read == 0) {
    return before;
  }
  const bool both_atomic = kKind == AccessKind::kAtomic && Order::IsAtomic(before.write);
  if (order_.IsUnordered(before.write, thread_, since) && !both_atomic) [[unlikely]] {
    FindRace(access, before.write, AccessKind::kWrite);
  }
  if (kKind == AccessKind::kRead) {
    return {.write = before.write, .read = order_.AfterRead(before.read, thread_, since)};
  }
  if (order_.IsUnordered(before.read, thread_, since)) [[unlikely]]
    FindRace(access, before.read, AccessKind::kRead);
  // Whoever comes after this write comes after those reads too.
  return {.write = access.record, .read = 0};
}

// Where the calling thread's accesses go to; null, as outside of kernels: nowhere.
extern constinit thread_local AccessCheck* active_access_check __attribute__((tls_model("initial-exec")));

}  // namespace gpu_sim
