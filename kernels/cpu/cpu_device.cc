#include "kernels/cpu/cpu_device.h"

#include <cpuid.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/cpu/large_pages.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/operations.h"
#include "kernels/cpu/stream.h"

namespace sluice::cpu {
namespace {

constexpr int64_t kAlignment = 64;

// The name the processor gives itself.
std::string ProcessorName() {
#if defined(__x86_64__)
  unsigned words[12] = {};
  if (__get_cpuid_max(0x80000000u, nullptr) >= 0x80000004u) {
    for (unsigned leaf = 0; leaf < 3; ++leaf) {
      unsigned* w = &words[4 * leaf];
      __get_cpuid(0x80000002u + leaf, &w[0], &w[1], &w[2], &w[3]);
    }
    const char* name = reinterpret_cast<const char*>(words);
    return std::string(absl::StripAsciiWhitespace(absl::string_view(name, strnlen(name, sizeof(words)))));
  }
#endif
  return "CPU";
}

// Small pieces come from the heap, whose borders sanitizers watch. The word before the aligned address remembers what to
// free.
std::byte* AllocateZeroed(int64_t bytes) {
  if (bytes >= kLargePage) return MapLargePages(bytes);
  void* const whole = std::calloc(1, static_cast<size_t>(bytes) + kAlignment + sizeof(void*));
  if (whole == nullptr) return nullptr;
  const uintptr_t after_word = reinterpret_cast<uintptr_t>(whole) + sizeof(void*);
  const uintptr_t aligned = (after_word + kAlignment - 1) / kAlignment * kAlignment;
  reinterpret_cast<void**>(aligned)[-1] = whole;
  return reinterpret_cast<std::byte*>(aligned);
}

void FreeZeroed(std::byte* data, int64_t bytes) {
  if (bytes >= kLargePage) return UnmapLargePages(data, bytes);
  std::free(reinterpret_cast<void**>(data)[-1]);
}

class CpuDevice final : public Device {
 public:
  CpuDevice(World* world, const CpuDeviceOptions& options)
      : world_(world), options_(options), operations_(NewOperations()) {}

  ~CpuDevice() override { CHECK_EQ(memory_.bytes, 0) << "buffers outlive their device"; }

  std::string description() const override {
    return absl::StrCat(ProcessorName(), ", ", options_.threads, options_.threads == 1 ? " thread" : " threads", ", ",
                        InstructionSet());
  }

  absl::StatusOr<Buffer> Allocate(int64_t bytes, absl::string_view purpose) override {
    CHECK_GE(bytes, 0);
    std::lock_guard lock(mutex_);
    const int64_t limit = options_.memory_limit_bytes;
    std::byte* data = nullptr;
    if (limit == 0 || bytes <= limit - memory_.bytes) data = AllocateZeroed(bytes);
    if (data == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("no memory for ", purpose, ": ", bytes, " bytes asked for, ", memory_.bytes, " held, ",
                       limit == 0 ? "no limit set (the system refused)" : absl::StrCat(limit, " allowed")));
    }
    if (options_.poison_fresh_memory) std::memset(data, 0xff, static_cast<size_t>(bytes));
    memory_.bytes += bytes;
    memory_.peak_bytes = std::max(memory_.peak_bytes, memory_.bytes);
    ++memory_.allocations;
    return Buffer(this, data, bytes);
  }

  std::unique_ptr<Stream> NewStream(absl::string_view name) override {
    return std::make_unique<CpuStream>(world_, name, options_.threads, options_.processors);
  }

  const Operations& operations() const override { return *operations_; }

  MemoryUse memory() const override {
    std::lock_guard lock(mutex_);
    return memory_;
  }

 private:
  void Free(std::byte* data, int64_t bytes) override {
    FreeZeroed(data, bytes);
    std::lock_guard lock(mutex_);
    memory_.bytes -= bytes;
  }

  World* const world_;
  const CpuDeviceOptions options_;
  const std::unique_ptr<Operations> operations_;
  mutable std::mutex mutex_;
  MemoryUse memory_;
};

}  // namespace

std::unique_ptr<Device> NewCpuDevice(World* world, const CpuDeviceOptions& options) {
  return std::make_unique<CpuDevice>(world, options);
}

}  // namespace sluice::cpu
