#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/check.h"
#include "kernels/cpu/matmul_rate.h"
#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/stream.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/memory_rate.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using Words = hn::ScalableTag<uint64_t>;

// Two vectors at once, so that an addition needn't wait for the one before. `count` is a multiple of both.
uint64_t ReadWords(const uint64_t* data, size_t count) {
  const Words words;
  const size_t lanes = hn::Lanes(words);
  auto even = hn::Zero(words), odd = hn::Zero(words);
  for (size_t i = 0; i < count; i += 2 * lanes) {
    even = hn::Add(even, hn::LoadU(words, data + i));
    odd = hn::Add(odd, hn::LoadU(words, data + i + lanes));
  }
  return hn::GetLane(hn::SumOfLanes(words, hn::Add(even, odd)));
}

void UpdateWords(uint64_t* data, size_t count) {
  const Words words;
  const auto one = hn::Set(words, 1);
  for (size_t i = 0; i < count; i += hn::Lanes(words)) {
    hn::StoreU(hn::Add(one, hn::LoadU(words, data + i)), words, data + i);
  }
}

}  // namespace
}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(ReadWords);
HWY_EXPORT(UpdateWords);

namespace {

constexpr int kRuns = 5;
constexpr int64_t kSmallestBuffer = int64_t{1} << 20;

enum class Motion : uint8_t { kRead, kWrite, kUpdate };

// Of one thread: no more than what makes all of them together twice the largest cache.
int64_t BufferBytes(int64_t working_set_bytes, int threads) {
  const int64_t cache = std::max<int64_t>(0, sysconf(_SC_LEVEL3_CACHE_SIZE));
  const int64_t largest = std::max<int64_t>(int64_t{256} << 20, 2 * cache / threads);
  return std::clamp(working_set_bytes / threads, kSmallestBuffer, largest) / 4096 * 4096;
}

struct Part {
  std::vector<uint64_t> data;
  uint64_t sum = 0;  // so that reading isn't optimized away
  std::unique_ptr<CpuStream> stream;
  std::vector<EventRef> ends;

  void Move(Motion motion) {
    switch (motion) {
      case Motion::kRead:
        sum += HWY_DYNAMIC_DISPATCH(ReadWords)(data.data(), data.size());
        break;
      case Motion::kWrite:  // the C library writes large pieces past the caches
        std::memset(data.data(), static_cast<int>(sum & 1), data.size() * sizeof(uint64_t));
        break;
      case Motion::kUpdate:
        HWY_DYNAMIC_DISPATCH(UpdateWords)(data.data(), data.size());
        break;
    }
  }
};

double RateOf(World* world, Motion motion, std::vector<Part>& parts) {
  for (Part& part : parts) {
    part.ends.clear();
    part.stream->Record();
    for (int run = 0; run < kRuns; ++run) {
      part.stream->Issue([mine = &part, motion](Team&) { mine->Move(motion); });
      part.ends.push_back(part.stream->Record());
    }
  }
  double rate = 0;
  for (Part& part : parts) {
    Nanoseconds best = kForever;
    for (const EventRef& end : part.ends) {
      CHECK_OK(world->Wait(end));
      best = std::min(best, std::max<Nanoseconds>(end->ended() - end->began(), 1));
    }
    rate += static_cast<double>(part.data.size() * sizeof(uint64_t)) * kSecond / static_cast<double>(best);
  }
  return rate / static_cast<double>(parts.size());
}

}  // namespace

MemoryRate MeasureMemoryRate(World* world, int64_t working_set_bytes, int threads) {
  std::vector<Part> parts(threads);
  for (Part& part : parts) {
    part.stream = std::make_unique<CpuStream>(world, "rates", 1, std::vector<int>());
    const int64_t words = BufferBytes(working_set_bytes, threads) / static_cast<int64_t>(sizeof(uint64_t));
    // Whoever uses memory touches it first.
    part.stream->Issue([mine = &part, words](Team&) { mine->data.resize(words); });
  }
  MemoryRate rate;
  rate.read = RateOf(world, Motion::kRead, parts);
  rate.write = RateOf(world, Motion::kWrite, parts);
  rate.update = RateOf(world, Motion::kUpdate, parts);
  return rate;
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
