#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "kernels/cpu/matmul_rate.h"
#include "kernels/cpu/stream.h"

namespace sluice::cpu {
namespace {

constexpr int kRuns = 5;

enum class Motion : uint8_t { kRead, kWrite, kUpdate };

constexpr int64_t kSmallestBuffer = int64_t{1} << 20;

// Of one thread: no more than what makes all of them together twice the largest cache.
int64_t BufferBytes(int64_t working_set_bytes, int threads) {
  const int64_t cache = std::max<int64_t>(0, sysconf(_SC_LEVEL3_CACHE_SIZE));
  const int64_t largest = std::max<int64_t>(int64_t{256} << 20, 2 * cache / threads);
  return std::clamp(working_set_bytes / threads, kSmallestBuffer, largest) / 4096 * 4096;
}

// Several words at once, so that no addition waits for the one before.
constexpr size_t kWords = 8;

uint64_t Read(const std::vector<uint64_t>& data) {
  uint64_t sums[kWords] = {};
  for (size_t i = 0; i < data.size(); i += kWords) {
    for (size_t j = 0; j < kWords; ++j) sums[j] += data[i + j];
  }
  return std::accumulate(std::begin(sums), std::end(sums), uint64_t{0});
}

struct Part {
  std::vector<uint64_t> data;
  uint64_t sum = 0;  // so that reading isn't optimized away
  std::unique_ptr<CpuStream> stream;
  std::vector<EventRef> ends;

  void Move(Motion motion) {
    switch (motion) {
      case Motion::kRead:
        sum += Read(data);
        break;
      case Motion::kWrite:  // the C library writes large pieces past the caches
        std::memset(data.data(), static_cast<int>(sum & 1), data.size() * sizeof(uint64_t));
        break;
      case Motion::kUpdate:
        for (size_t i = 0; i < data.size(); i += kWords) {
          for (size_t j = 0; j < kWords; ++j) data[i + j] += 1;
        }
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
      best = std::min(best, end->ended() - end->began());
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
