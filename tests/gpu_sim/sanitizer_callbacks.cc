// What the compiler calls before each access in code compiled with -fsanitize=thread. In code of the host that is
// compiled so (a launcher beside its kernel) nothing is checked.
#include "tests/gpu_sim/access_check.h"

namespace {

using gpu_sim::AccessCheck;
using gpu_sim::AccessKind;
using gpu_sim::active_access_check;

inline void OnRange(void* address, unsigned long bytes, AccessKind kind, const void* pc) {
  if (AccessCheck* const check = active_access_check) check->Check(address, static_cast<int64_t>(bytes), kind, pc);
}

}  // namespace

#define GPU_SIM_ON_ACCESS(name, size, kind, alignment)                                              \
  void __tsan_##name(void* address) {                                                               \
    if (AccessCheck* const check = active_access_check) {                                           \
      check->CheckAligned<size, AccessKind::kind, alignment>(address, __builtin_return_address(0)); \
    }                                                                                               \
  }
// Of 16 bytes the compiler promises an alignment of 8 only; Load128 and Store128 check theirs.
#define GPU_SIM_ON_SIZE(size, alignment)                           \
  GPU_SIM_ON_ACCESS(read##size, size, kRead, alignment)            \
  GPU_SIM_ON_ACCESS(write##size, size, kWrite, alignment)          \
  GPU_SIM_ON_ACCESS(volatile_read##size, size, kRead, alignment)   \
  GPU_SIM_ON_ACCESS(volatile_write##size, size, kWrite, alignment) \
  GPU_SIM_ON_ACCESS(unaligned_read##size, size, kRead, 1)          \
  GPU_SIM_ON_ACCESS(unaligned_write##size, size, kWrite, 1)

extern "C" {

GPU_SIM_ON_SIZE(1, 1)
GPU_SIM_ON_SIZE(2, 2)
GPU_SIM_ON_SIZE(4, 4)
GPU_SIM_ON_SIZE(8, 8)
GPU_SIM_ON_SIZE(16, 8)

void __tsan_read_range(void* address, unsigned long bytes) {
  OnRange(address, bytes, AccessKind::kRead, __builtin_return_address(0));
}
void __tsan_write_range(void* address, unsigned long bytes) {
  OnRange(address, bytes, AccessKind::kWrite, __builtin_return_address(0));
}

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
// Kernels have no virtual functions; launchers may destroy objects that do.
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

}  // extern "C"
