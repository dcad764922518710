// A rank's small thread team: the stream's own thread and size-1 helpers that take fixed blocks of an operation's work.
// No OpenMP.
//
// Threads: ParallelFor is called by one thread at a time, the team's owner. Helpers that have nothing to do spin for a
// few microseconds, and only while the process has no more team threads than processors; then they sleep. Arithmetic:
// the body runs with denormal numbers flushed to zero, on every thread alike.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"

namespace sluice::cpu {

class Team {
 public:
  // `processors`: where the helpers run, one each from the second on (the first is the owner's); empty: anywhere.
  Team(int size, std::vector<int> processors);
  ~Team();
  int size() const;
  // Calls body(0) ... body(blocks-1), each once, on any of the team's threads in any order, and returns when all have
  // returned. How the work is cut into blocks must not depend on size(). An exception of the body ends the loop early
  // and is rethrown here.
  void ParallelFor(int64_t blocks, absl::FunctionRef<void(int64_t block)> body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// At least `bytes` of memory that belongs to the calling thread, 64-byte aligned, with whatever was in it; it grows and
// is kept, so that the hot path allocates nothing. The next call on the same thread with the same slot takes it back.
enum class ScratchSlot : uint8_t { kOperation, kLibrary, kOuter };
std::byte* ThreadScratch(ScratchSlot slot, int64_t bytes);

}  // namespace sluice::cpu
