#include "kernels/cuda/simt.h"
#include "tests/gpu_sim/thread_cases.h"
#include "tests/gpu_sim/thread_launch.h"

namespace gpu_sim {
namespace {

using sluice::cuda::CommitAsync;
using sluice::cuda::CopyAsync16;
using sluice::cuda::Load128;
using sluice::cuda::SharedMemory;
using sluice::cuda::WaitAsync;

constexpr int kThreads = 64;
constexpr int kBlocks = 2;
constexpr int kElements = kThreads * kBlocks;
constexpr unsigned kAllLanes = ~0u;

struct Params {
  bool wrong;
  const float* x;  // [kElements]
  float* y;        // [kElements]
  int* counters;   // [1], 0
  const float* host;
};

__device__ int Index() { return blockIdx.x * blockDim.x + threadIdx.x; }

constexpr int kReadBeyondLine = __LINE__ + 3;
__global__ void ReadBeyond(Params p) {
  const int i = Index();
  p.y[i] = p.x[p.wrong ? i + 1 : i];
}

constexpr int kFarBeyondLine = __LINE__ + 1;
__global__ void FarBeyond(Params p) { p.y[Index() + (p.wrong ? 1 << 20 : 0)] = 1.0f; }

constexpr int kSharedBeyondLine = __LINE__ + 3;
__global__ void SharedBeyond(Params p) {
  float* const shared = SharedMemory<float>();
  shared[threadIdx.x + (p.wrong ? 1 : 0)] = 1.0f;
  p.y[Index()] = shared[threadIdx.x];
}

constexpr int kHostLine = __LINE__ + 1;
__global__ void Host(Params p) { p.y[Index()] = p.wrong ? *p.host : *p.x; }

__device__ const float kTable[4] = {1.0f, 2.0f, 3.0f, 4.0f};
constexpr int kHostWriteLine = __LINE__ + 3;
__global__ void HostWrite(Params p) {
  p.y[Index()] = kTable[threadIdx.x % 4];
  if (p.wrong) *const_cast<float*>(p.host) = 1.0f;
}

constexpr int kNeverWrittenLine = __LINE__ + 3;
__global__ void NeverWritten(Params p) {
  const int i = Index();
  const float before = p.wrong ? p.y[i] : 0.0f;
  p.y[i] = before + p.x[i];
}

constexpr int kSharedNeverWrittenLine = __LINE__ + 5;
__global__ void SharedNeverWritten(Params p) {
  float* const shared = SharedMemory<float>();
  if (!p.wrong || threadIdx.x > 0) shared[threadIdx.x] = p.x[Index()];
  __syncthreads();
  p.y[Index()] = shared[kThreads - 1 - threadIdx.x];
}

constexpr int kMisalignedLine = __LINE__ + 3;
__global__ void Misaligned(Params p) {
  const float* const from = p.x + (p.wrong ? 1 : 0);
  const uint4 four = Load128(from);
  p.y[Index()] = __uint_as_float(four.x);
}

constexpr int kMisalignedWordLine = __LINE__ + 4;
__global__ void MisalignedWord(Params p) {
  const auto* const bytes = reinterpret_cast<const char*>(p.x) + (p.wrong ? 2 : 0);
  const auto* const pair = reinterpret_cast<const float*>(bytes);
  p.y[Index()] = *pair;
}

// A write, then a read of it by another thread.
constexpr int kReadAfterWriteLine = __LINE__ + 5;
__global__ void ReadAfterWrite(Params p) {
  float* const shared = SharedMemory<float>();
  shared[threadIdx.x] = p.x[Index()];
  if (!p.wrong) __syncthreads();
  p.y[Index()] = shared[(threadIdx.x + 1) % kThreads];
}

// A read, then a write over it by another thread.
constexpr int kWriteAfterReadLine = __LINE__ + 7;
__global__ void WriteAfterRead(Params p) {
  float* const shared = SharedMemory<float>();
  shared[threadIdx.x] = p.x[Index()];
  __syncthreads();
  const float next = shared[(threadIdx.x + 1) % kThreads];
  if (!p.wrong) __syncthreads();
  shared[threadIdx.x] = next;
  p.y[Index()] = shared[threadIdx.x];
}

// Lanes of one warp, which __syncwarp orders and a shuffle doesn't.
constexpr int kWithinWarpLine = __LINE__ + 6;
__global__ void WithinWarp(Params p) {
  float* const shared = SharedMemory<float>();
  shared[threadIdx.x] = p.x[Index()];
  __shfl_sync(kAllLanes, 0, 0);
  if (!p.wrong) __syncwarp();
  p.y[Index()] = shared[threadIdx.x ^ 1];
}

// Half of a warp, ordered by a barrier of that half.
constexpr int kHalfWarpLine = __LINE__ + 6;
__global__ void HalfWarp(Params p) {
  float* const shared = SharedMemory<float>();
  shared[threadIdx.x] = p.x[Index()];
  const bool lower = threadIdx.x % 32 < 16;
  __syncwarp(lower ? 0xffffu : 0xffff0000u);
  p.y[Index()] = shared[threadIdx.x ^ (p.wrong ? 16 : 1)];
}

constexpr int kSameWordLine = __LINE__ + 1;
__global__ void SameWord(Params p) { p.y[p.wrong ? blockIdx.x * kThreads + threadIdx.x / 2 : Index()] = 1.0f; }

constexpr int kAcrossBlocksLine = __LINE__ + 4;
__global__ void AcrossBlocks(Params p) {
  const int i = Index();
  const int to = p.wrong ? static_cast<int>(threadIdx.x) : i;
  p.y[to] = p.x[i];
}

// The block that comes last must not read what others wrote.
constexpr int kReadsOtherBlockLine = __LINE__ + 6;
__global__ void ReadsOtherBlock(Params p) {
  const int i = Index();
  p.y[i] = p.x[i];
  __syncthreads();
  const bool last = __syncthreads_or(threadIdx.x == 0 && atomicAdd(p.counters, 1) == kBlocks - 1);
  if (last && p.wrong) p.y[i] += p.y[(i + kThreads) % kElements];
}

constexpr int kAtomicAndPlainLine = __LINE__ + 3;
__global__ void AtomicAndPlain(Params p) {
  p.y[Index()] = 1.0f;
  if (p.wrong && threadIdx.x == 1) *p.counters = 1;
  atomicAdd(p.counters, 1);
}

constexpr int kUndeclaredReadLine = __LINE__ + 1;
__global__ void UndeclaredRead(Params p) { p.y[Index()] = p.wrong ? static_cast<float>(*p.counters) : 0.0f; }

constexpr int kUndeclaredWriteLine = __LINE__ + 3;
__global__ void UndeclaredWrite(Params p) {
  p.y[Index()] = 1.0f;
  if (p.wrong && Index() == 0) *const_cast<float*>(p.x) = 1.0f;
}

__global__ void NotAllWritten(Params p) {
  if (!p.wrong || Index() != 5) p.y[Index()] = 1.0f;
}

constexpr int kEndedLine = __LINE__ + 4;
__global__ void Ended(Params p) {
  p.y[Index()] = 1.0f;
  if (p.wrong && threadIdx.x == 5) return;
  __syncthreads();
}

constexpr int kApartLine = __LINE__ + 4;
__global__ void Apart(Params p) {
  p.y[Index()] = 1.0f;
  if (p.wrong && threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

constexpr int kMaskWithoutLaneLine = __LINE__ + 2;
__global__ void MaskWithoutLane(Params p) {
  p.y[Index()] = __shfl_xor_sync(p.wrong ? 0x7fffffffu : kAllLanes, p.x[Index()], 1);
}

constexpr int kMaskOfEndedLine = __LINE__ + 4;
__global__ void MaskOfEnded(Params p) {
  p.y[Index()] = 1.0f;
  if (threadIdx.x % 32 >= 16) return;
  __any_sync(p.wrong ? kAllLanes : 0xffffu, 1);
}

constexpr int kFromOutsideLine = __LINE__ + 5;
__global__ void FromOutside(Params p) {
  p.y[Index()] = 1.0f;
  const int lane = threadIdx.x % 32;
  if (lane >= 16) return;
  p.y[Index()] = __shfl_sync(0xffffu, 1.0f, p.wrong && lane == 3 ? 16 : lane);
}

constexpr int kDivergedLine = __LINE__ + 4;
__global__ void Diverged(Params p) {
  p.y[Index()] = 1.0f;
  if (threadIdx.x % 2 == 0 && p.wrong) {
    __any_sync(kAllLanes, 0);
  } else {
    __any_sync(kAllLanes, 1);
  }
}

constexpr int kNotLandedLine = __LINE__ + 6;
__global__ void NotLanded(Params p) {
  float* const shared = SharedMemory<float>();
  if (threadIdx.x % 4 == 0) CopyAsync16(shared + threadIdx.x, p.x + Index());
  CommitAsync();
  if (!p.wrong) WaitAsync<0>();
  if (threadIdx.x % 4 == 0) p.y[Index()] = shared[threadIdx.x];
}

constexpr int kLandedForOneLine = __LINE__ + 7;
__global__ void LandedForOne(Params p) {
  float* const shared = SharedMemory<float>();
  if (threadIdx.x % 4 == 0) CopyAsync16(shared + threadIdx.x, p.x + Index());
  CommitAsync();
  WaitAsync<0>();
  if (!p.wrong) __syncthreads();
  p.y[Index()] = shared[threadIdx.x];
}

constexpr int kCopiedOverReadLine = __LINE__ + 9;
__global__ void CopiedOverRead(Params p) {
  float* const shared = SharedMemory<float>();
  shared[threadIdx.x] = 1.0f;
  __syncthreads();
  p.y[Index()] = shared[kThreads - 1 - threadIdx.x];
  if (!p.wrong) __syncthreads();
  if (threadIdx.x % 4 != 0) return;
  const float* const from = p.x + Index();
  CopyAsync16(shared + threadIdx.x, from);
}

constexpr int kCopyToGlobalLine = __LINE__ + 4;
__global__ void CopyToGlobal(Params p) {
  void* const shared = SharedMemory<float>() + threadIdx.x / 4 * 4;
  p.y[Index()] = 1.0f;
  if (threadIdx.x == 0) CopyAsync16(p.wrong ? p.y : shared, p.x);
}

enum class Output { kWritten, kInPlace };

RunResult RunCase(void (*kernel)(Params), bool wrong, uint64_t seed, Output output) {
  const DeviceArray<float> x(std::vector<float>(kElements, 1.0f)), y(kElements);
  const DeviceArray<int> counter(std::vector<int>{0});
  const float host = 0.0f;
  const bool counts = kernel == ReadsOtherBlock || kernel == AtomicAndPlain;
  ThreadLaunch launch{.grid = kBlocks,
                      .block = kThreads,
                      .shared_bytes = kThreads * sizeof(float),
                      .reads = {x.region()},
                      .writes = {y.region()},
                      .options = {.seed = seed}};
  if (output == Output::kInPlace) launch.reads.push_back(y.region());
  if (counts) {
    launch.reads.push_back(counter.region());
    launch.writes.push_back(counter.region());
  }
  return RunThreads(kernel, launch, Params{wrong, x.data(), y.data(), counter.data(), &host});
}

}  // namespace

std::vector<ThreadCase> ThreadCases() {
  std::vector<ThreadCase> cases;
  const auto add = [&](const char* name, void (*kernel)(Params), int line, const char* report,
                       Output output = Output::kWritten) {
    cases.push_back({.name = name, .line = line, .report = report, .run = [=](bool wrong, uint64_t seed) {
                       return RunCase(kernel, wrong, seed, output);
                     }});
  };
  add("ReadBeyond", ReadBeyond, kReadBeyondLine, "0 bytes after the end of the 512 bytes on device 0 allocated at");
  add("FarBeyond", FarBeyond, kFarBeyondLine, "is not the kernel's memory");
  add("SharedBeyond", SharedBeyond, kSharedBeyondLine, "byte 256 of shared memory, which is not the kernel's memory");
  add("Host", Host, kHostLine, "host memory at");
  add("HostWrite", HostWrite, kHostWriteLine, "writes 4 bytes at host memory at");
  add("NeverWritten", NeverWritten, kNeverWrittenLine, "which nothing has written", Output::kInPlace);
  add("SharedNeverWritten", SharedNeverWritten, kSharedNeverWrittenLine, "shared memory, which nothing has written");
  add("Misaligned", Misaligned, kMisalignedLine, "which is no multiple");
  add("MisalignedWord", MisalignedWord, kMisalignedWordLine, "which is no multiple");
  add("ReadAfterWrite", ReadAfterWrite, kReadAfterWriteLine, "with no barrier in between");
  add("WriteAfterRead", WriteAfterRead, kWriteAfterReadLine, "with no barrier in between");
  add("WithinWarp", WithinWarp, kWithinWarpLine, "with no barrier in between");
  add("HalfWarp", HalfWarp, kHalfWarpLine, "with no barrier in between");
  add("SameWord", SameWord, kSameWordLine, "with no barrier in between", Output::kInPlace);
  add("AcrossBlocks", AcrossBlocks, kAcrossBlocksLine, "nothing orders blocks", Output::kInPlace);
  add("ReadsOtherBlock", ReadsOtherBlock, kReadsOtherBlockLine, "nothing orders blocks", Output::kInPlace);
  add("AtomicAndPlain", AtomicAndPlain, kAtomicAndPlainLine, "");
  add("UndeclaredRead", UndeclaredRead, kUndeclaredReadLine, "which its launch doesn't declare");
  add("UndeclaredWrite", UndeclaredWrite, kUndeclaredWriteLine, "which its launch doesn't declare");
  add("NotAllWritten", NotAllWritten, 0, "declares that it writes byte 20 of the 512 bytes");
  add("Ended", Ended, kEndedLine, "waits for thread (5,0,0)");
  add("Apart", Apart, kApartLine, "");
  add("MaskWithoutLane", MaskWithoutLane, kMaskWithoutLaneLine, "isn't in its own mask");
  add("MaskOfEnded", MaskOfEnded, kMaskOfEndedLine, "has ended or never was");
  add("FromOutside", FromOutside, kFromOutsideLine, "outside of the mask", Output::kInPlace);
  add("Diverged", Diverged, kDivergedLine, "");
  add("NotLanded", NotLanded, kNotLandedLine, "or not landed yet", Output::kInPlace);
  add("LandedForOne", LandedForOne, kLandedForOneLine, "with no barrier in between");
  add("CopiedOverRead", CopiedOverRead, kCopiedOverReadLine, "with no barrier in between");
  add("CopyToGlobal", CopyToGlobal, kCopyToGlobalLine, "which is not the kernel's memory");
  return cases;
}

namespace {

struct SumParams {
  const float* x;
  float* y;
  bool redundant;
};
__global__ void PrefixSums(SumParams p) {
  float* const sums = SharedMemory<float>();
  const int i = threadIdx.x;
  sums[i] = p.x[Index()];
  for (int distance = 1; distance < kThreads; distance *= 2) {
    __syncthreads();
    const float add = i >= distance ? sums[i - distance] : 0.0f;
    __syncthreads();
    sums[i] += add;
  }
  if (p.redundant) __syncthreads();
  p.y[Index()] = sums[i];
}

struct LongParams {
  int* y;
  int barriers;
};
__global__ void LongBlocks(LongParams p) {
  if (threadIdx.x == 0) *p.y = 1;
  for (int i = 0; i < p.barriers; ++i) __syncthreads();
}

__global__ void DeepThread(LongParams p) {
  volatile int deep[1 << 18];
  for (int i = (1 << 18) - 1; i >= 0; --i) deep[i] = i;
  *p.y = deep[p.barriers];
}

}  // namespace

RunResult RunOnFreedMemory() {
  DeviceArray<float> x(std::vector<float>(kElements, 1.0f)), y(kElements);
  ThreadLaunch launch{.grid = kBlocks, .block = kThreads, .shared_bytes = kThreads * sizeof(float)};
  launch.reads = {x.region()};
  launch.writes = {y.region()};
  const SumParams params{x.data(), y.data(), false};
  x.Free();
  return RunThreads(PrefixSums, launch, params);
}

std::vector<float> RunPrefixSums(const std::vector<float>& x, bool redundant, uint64_t seed, BarrierPower* power) {
  const DeviceArray<float> xs(x), ys(static_cast<int64_t>(x.size()));
  const ThreadLaunch launch{.grid = static_cast<unsigned>(x.size() / kThreads),
                            .block = kThreads,
                            .shared_bytes = kThreads * sizeof(float),
                            .reads = {xs.region()},
                            .writes = {ys.region()},
                            .options = {.seed = seed},
                            .power = power};
  const RunResult result = RunThreads(PrefixSums, launch, SumParams{xs.data(), ys.data(), redundant});
  return result.reports.empty() ? ys.values() : std::vector<float>();
}

RunResult RunLongBlocks(int barriers) {
  const DeviceArray<int> y(std::vector<int>{0});
  const ThreadLaunch launch{.grid = 2, .block = 2, .reads = {y.region()}, .writes = {y.region()}};
  return RunThreads(LongBlocks, launch, LongParams{y.data(), barriers});
}

void RunDeepThread() {
  const DeviceArray<int> y(1);
  RunThreads(DeepThread, {.writes = {y.region()}}, LongParams{y.data(), 5});
}

}  // namespace gpu_sim
