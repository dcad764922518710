#include "kernels/cuda/hash.h"
#include "kernels/cuda/row_group.h"
#include "kernels/hash_chains.h"
#include "kernels/operation_check.h"

namespace sluice::cuda {
namespace {

constexpr int kHashThreads = kHashBlocksOfThreads * kHashChains;
constexpr int kWord = sizeof(uint64_t);

// A word of which some bytes may lie behind the end: those are 0.
__device__ uint64_t PartialWord(const std::byte* p, int64_t available) {
  uint64_t word = 0;
  for (int i = 0; i < kWord && i < available; ++i) word |= static_cast<uint64_t>(p[i]) << (8 * i);
  return word;
}

// A thread has a chain of one of kHashBlocksOfThreads blocks of the source.
__global__ void HashBlocksKernel(HashBlocksParams p) {
  const int chain = threadIdx.x % kHashChains;
  const int64_t block = int64_t{blockIdx.x} * kHashBlocksOfThreads + threadIdx.x / kHashChains;
  const int64_t begin = block * kHashBlockBytes, left = p.bytes - begin;
  const int64_t size = left < kHashBlockBytes ? left : kHashBlockBytes;
  const std::byte* const data = p.source + begin;
  uint64_t value = BeginHashChain(block);
  int64_t at = chain * kWord;
  if (p.aligned) {
#pragma unroll 8
    for (; at + kWord <= size; at += kHashChains * kWord) {
      value = AbsorbWord(value, *reinterpret_cast<const uint64_t*>(data + at));
    }
  }
  // All chains have as many words: those of the whole rows of words, and one more.
  for (; at < (size / (kHashChains * kWord) + 1) * kHashChains * kWord; at += kHashChains * kWord) {
    value = AbsorbWord(value, PartialWord(data + at, size - at));
  }

  uint64_t hash = 0;
  for (int c = 0; c < kHashChains; ++c) {
    hash = JoinHashChain(hash, __shfl_sync(kAllLanes, value, threadIdx.x % kWarp / kHashChains * kHashChains + c));
  }
  uint64_t* const shared = SharedMemory<uint64_t>();
  if (chain == 0) shared[threadIdx.x / kHashChains] = left > 0 ? hash : 0;
  __syncthreads();
  if (threadIdx.x != 0) return;
  uint64_t sum = 0;
  for (int b = 0; b < kHashBlocksOfThreads; ++b) sum += shared[b];
  p.partials[blockIdx.x] = sum;
}

__global__ void SumHashesKernel(SumHashesParams p) {
  uint64_t sum = threadIdx.x == 0 ? HashOfSize(p.source_bytes) : 0;
  for (int64_t i = threadIdx.x; i < p.count; i += kWarp) sum += p.partials[i];
  for (int distance = kWarp / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(kAllLanes, sum, distance);
  if (threadIdx.x != 0) return;
  p.hash[0] = static_cast<uint32_t>(sum);
  p.hash[1] = static_cast<uint32_t>(sum >> 32);
}

int64_t Partials(int64_t bytes) { return DivideUp(bytes, kHashBlocksOfThreads * kHashBlockBytes); }

}  // namespace

int64_t HashWorkspaceBytes(int64_t source_bytes) { return Partials(source_bytes) * kWord; }

cudaError_t Hash(cudaStream_t stream, const TensorView& source, const TensorView& hash, const Workspace& workspace) {
  CheckHash(hash);
  const int64_t count = Partials(source.bytes());
  const Region partials{workspace.data, count * kWord};
  CHECK_GE(workspace.bytes, partials.bytes);
  if (count > 0) {
    const HashBlocksParams params{.aligned = reinterpret_cast<uintptr_t>(source.data) % kWord == 0,
                                  .bytes = source.bytes(),
                                  .source = source.data,
                                  .partials = reinterpret_cast<uint64_t*>(workspace.data)};
    const LaunchConfig config{"HashBlocks", dim3(count), dim3(kHashThreads), kHashBlocksOfThreads * kWord, stream};
    const cudaError_t error = Launch(HashBlocksKernel, config, {Of(source)}, {partials}, params);
    if (error != cudaSuccess) return error;
  }
  const SumHashesParams params{.source_bytes = source.bytes(),
                               .count = count,
                               .partials = reinterpret_cast<uint64_t*>(workspace.data),
                               .hash = hash.as<uint32_t>()};
  return Launch(SumHashesKernel, {"SumHashes", dim3(1), dim3(kWarp), 0, stream}, {partials}, {Of(hash)}, params);
}

}  // namespace sluice::cuda
