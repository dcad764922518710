// A rank's small thread team: the stream's own thread and size-1 helpers that take fixed blocks of an operation's work. No OpenMP.
// Threads: ParallelFor is called by one thread at a time, the team's owner.
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
  // Calls body(0) ... body(blocks-1), each once, on any of the team's threads in any order, and returns when all have returned.
  // How the work is cut into blocks must not depend on size(). The body must not throw.
  void ParallelFor(int64_t blocks, absl::FunctionRef<void(int64_t block)> body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::cpu
