#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "base/check.h"
#include "hwy/aligned_allocator.h"
#include "hwy/cache_control.h"
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

// Past the caches.
void StreamWords(uint64_t value, uint64_t* data, size_t count) {
  const Words words;
  const auto values = hn::Set(words, value);
  for (size_t i = 0; i < count; i += hn::Lanes(words)) hn::Stream(values, words, data + i);
  hwy::FlushStream();
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
HWY_EXPORT(StreamWords);
HWY_EXPORT(UpdateWords);

namespace {

// Each piece is timed by itself and the median counts: what other programs take away is in a few of them.
constexpr int64_t kPieceBytes = int64_t{4} << 20;
constexpr int kPieces = 250;  // more than a stream holds commands for would make the next thread begin later
constexpr int64_t kSmallestBuffer = int64_t{1} << 20;

enum class Motion : uint8_t { kRead, kWrite, kStream, kUpdate };

// Of one thread: no more than what makes all of them together twice the largest cache.
int64_t BufferBytes(int64_t working_set_bytes, int threads) {
  const int64_t cache = std::max<int64_t>(0, sysconf(_SC_LEVEL3_CACHE_SIZE));
  const int64_t largest = std::max<int64_t>(int64_t{256} << 20, 2 * cache / threads);
  const int64_t bytes = std::clamp(working_set_bytes / threads, kSmallestBuffer, largest);
  return bytes / kPieceBytes > 0 ? bytes / kPieceBytes * kPieceBytes : bytes / 4096 * 4096;
}

struct Part {
  hwy::AlignedFreeUniquePtr<uint64_t[]> data;
  uint64_t sum = 0;  // so that reading isn't optimized away
  std::unique_ptr<CpuStream> stream;
  std::vector<EventRef> ends;

  void Move(Motion motion, uint64_t* words, size_t count) {
    switch (motion) {
      case Motion::kRead:
        sum += HWY_DYNAMIC_DISPATCH(ReadWords)(words, count);
        break;
      case Motion::kWrite:
        std::memset(words, static_cast<int>(sum & 1), count * sizeof(uint64_t));
        break;
      case Motion::kStream:
        HWY_DYNAMIC_DISPATCH(StreamWords)(sum, words, count);
        break;
      case Motion::kUpdate:
        HWY_DYNAMIC_DISPATCH(UpdateWords)(words, count);
        break;
    }
  }
};

Nanoseconds MedianTime(World* world, const std::vector<EventRef>& ends) {
  std::vector<Nanoseconds> times;
  for (const EventRef& end : ends) {
    CHECK_OK(world->Wait(end));
    times.push_back(std::max<Nanoseconds>(end->ended() - end->began(), 1));
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

// Of a thread, all of them at once, round after round over their buffers.
double RateOf(World* world, Motion motion, int64_t buffer_bytes, std::vector<Part>& parts) {
  const int64_t piece_bytes = std::min(kPieceBytes, buffer_bytes), pieces = buffer_bytes / piece_bytes;
  const size_t count = static_cast<size_t>(piece_bytes) / sizeof(uint64_t);
  for (Part& part : parts) {
    part.ends.clear();
    part.stream->Record();
    for (int64_t piece = 0; piece < std::max<int64_t>(kPieces, pieces); ++piece) {
      part.stream->Issue([mine = &part, motion, begin = count * (piece % pieces), count](Team&) {
        mine->Move(motion, mine->data.get() + begin, count);
      });
      part.ends.push_back(part.stream->Record());
    }
  }
  double rate = 0;
  for (const Part& part : parts) {
    rate += static_cast<double>(piece_bytes) * kSecond / static_cast<double>(MedianTime(world, part.ends));
  }
  return rate / static_cast<double>(parts.size());
}

}  // namespace

MemoryRate MeasureMemoryRate(World* world, int64_t working_set_bytes, int threads) {
  const int64_t bytes = BufferBytes(working_set_bytes, threads);
  std::vector<Part> parts(threads);
  for (Part& part : parts) {
    part.stream = std::make_unique<CpuStream>(world, "rates", 1, std::vector<int>());
    part.stream->Issue([mine = &part, words = static_cast<size_t>(bytes) / sizeof(uint64_t)](Team&) {
      mine->data = hwy::AllocateAligned<uint64_t>(words);  // whoever uses memory touches it first
      std::memset(mine->data.get(), 0, words * sizeof(uint64_t));
    });
  }
  MemoryRate rate;
  rate.read = RateOf(world, Motion::kRead, bytes, parts);
  rate.write = std::max(RateOf(world, Motion::kWrite, bytes, parts), RateOf(world, Motion::kStream, bytes, parts));
  rate.update = RateOf(world, Motion::kUpdate, bytes, parts);
  return rate;
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
