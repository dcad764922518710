// What kernels call (include/device_side.h), for the CUDA thread that runs. The place of a call is its return address.
#include "tests/gpu_sim/block.h"

namespace gpu_sim {

uint3 ThreadIndex() { return Block::Running().thread_index(); }
uint3 BlockIndex() { return Block::Running().block_index(); }
dim3 BlockSize() { return Block::Running().launch().block; }
dim3 GridSize() { return Block::Running().launch().grid; }
void* SharedMemory() { return Shadow::Get().arena(); }

int SyncThreads(int predicate) { return Block::Running().SyncThreads(predicate, __builtin_return_address(0)); }

void SyncWarp(unsigned mask) {
  WarpCall call{.kind = WarpCall::Kind::kSync, .mask = mask, .pc = __builtin_return_address(0)};
  Block::Running().RunTogether(&call);
}

uint64_t Shuffle(ShuffleKind kind, unsigned mask, uint64_t bits, int operand, int width) {
  WarpCall call{.kind = WarpCall::Kind::kShuffle,
                .mask = mask,
                .pc = __builtin_return_address(0),
                .bits = bits,
                .shuffle = kind,
                .operand = operand,
                .width = width};
  Block::Running().RunTogether(&call);
  return call.bits;
}

unsigned Ballot(unsigned mask, int predicate) {
  WarpCall call{.kind = WarpCall::Kind::kBallot,
                .mask = mask,
                .pc = __builtin_return_address(0),
                .bits = static_cast<uint64_t>(predicate != 0)};
  Block::Running().RunTogether(&call);
  return static_cast<unsigned>(call.bits);
}

unsigned MatchAny(unsigned mask, uint64_t bits) {
  WarpCall call{.kind = WarpCall::Kind::kMatch, .mask = mask, .pc = __builtin_return_address(0), .bits = bits};
  Block::Running().RunTogether(&call);
  return static_cast<unsigned>(call.bits);
}

uint4 Load128(const void* from) {
  Block::Running().CheckAccess(from, sizeof(uint4), AccessKind::kRead, __builtin_return_address(0));
  return *static_cast<const uint4*>(from);
}

void Store128(void* to, uint4 value) {
  Block::Running().CheckAccess(to, sizeof(uint4), AccessKind::kWrite, __builtin_return_address(0));
  *static_cast<uint4*>(to) = value;
}

void CheckAtomic(void* p, int bytes) {
  Block::Running().CheckAccess(p, bytes, AccessKind::kAtomic, __builtin_return_address(0));
}

void CopyAsync(void* shared, const void* global, int bytes) {
  Block::Running().CopyAsync(shared, global, bytes, __builtin_return_address(0));
}
void CommitAsync() { Block::Running().CommitAsync(); }
void WaitAsync(int pending) { Block::Running().WaitAsync(pending, __builtin_return_address(0)); }

void LoadMatrix(int matrices, bool transposed, const void* row, uint32_t* fragment) {
  const void* const pc = __builtin_return_address(0);
  Block& block = Block::Running();
  if (block.thread() % kLanes < 8 * matrices) block.CheckShared(row, 16, AccessKind::kRead, pc);
  WarpCall call{.kind = WarpCall::Kind::kLoadMatrix,
                .pc = pc,
                .matrices = matrices,
                .transposed = transposed,
                .row = row,
                .fragment = fragment};
  block.RunTogether(&call);
}

void MmaBf16(float* d, const uint32_t* a, const uint32_t* b) {
  WarpCall call{.kind = WarpCall::Kind::kMma, .pc = __builtin_return_address(0), .d = d, .a = a, .b = b};
  Block::Running().RunTogether(&call);
}

}  // namespace gpu_sim
