// What is known of each byte that a kernel can reach, at addresses computed from the byte's own: all that it can reach
// lies in one range of addresses, the arena: the shared memory of the block that runs, the stacks of its threads, and
// all device memory. Internal to the simulated GPU.
//
// Threads: one at a time, and any thread may mark bytes that no running kernel touches.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpu_sim {

// Who touched a byte last, when (order.h). 0: nobody.
struct Touched {
  uint32_t write = 0;
  uint32_t read = 0;
  friend bool operator==(const Touched&, const Touched&) = default;
};

// The bytes of a 16-byte line that the running launch declares, a bit each.
struct Declared {
  uint16_t read = 0;
  uint16_t write = 0;
};

class Shadow {
 public:
  static constexpr uintptr_t kArenaBytes = uintptr_t{4} << 40;
  static constexpr uintptr_t kSharedBytes = 1 << 20;  // from the arena's start on; more than any device has
  static constexpr uintptr_t kStack = kSharedBytes;   // where the stacks begin
  static constexpr uintptr_t kStackBytes = 1 << 16;   // of one thread, with a closed page at its end
  static constexpr int kStacks = 1024;
  static constexpr uintptr_t kDevice = kStack + kStacks * kStackBytes;  // where device memory begins
  static constexpr int kLine = 16;                                      // bytes

  static const Shadow& Get() {
    static const Shadow shadow;
    return shadow;
  }

  // The addresses that a program is given in place of the arena's, offset for offset: closed.
  std::byte* closed() const { return reinterpret_cast<std::byte*>(closed_); }
  bool IsClosed(const void* address) const { return reinterpret_cast<uintptr_t>(address) - closed_ < kArenaBytes; }
  std::byte* arena() const { return reinterpret_cast<std::byte*>(arena_); }
  uintptr_t OffsetOf(const void* address) const { return reinterpret_cast<uintptr_t>(address) - arena_; }
  bool Contains(const void* address) const { return OffsetOf(address) < kArenaBytes; }

  Touched* touched(uintptr_t offset) const { return touched_ + offset; }
  Declared* declared(uintptr_t offset) const { return declared_ + offset / kLine; }
  // Bits of a line: byte i has ever been written.
  uint16_t* written(uintptr_t offset) const { return written_ + offset / kLine; }

  bool IsWritten(uintptr_t offset) const { return *written(offset) >> offset % kLine & 1; }
  void SetWritten(uintptr_t offset, int64_t bytes, bool value) const;
  void SetDeclared(uintptr_t offset, int64_t bytes, bool write, bool value) const;
  // The range as if never touched and never written.
  void Drop(uintptr_t offset, int64_t bytes) const;
  // All as if never touched.
  void DropTouched() const;

 private:
  Shadow();

  uintptr_t closed_ = 0, arena_ = 0;
  Touched* touched_ = nullptr;
  Declared* declared_ = nullptr;
  uint16_t* written_ = nullptr;
};

}  // namespace gpu_sim
