// Stacks that take turns on one thread (Boost.Context), one for each CUDA thread of a block. They are used again for
// each block; what a fiber was in the middle of when it is started anew is forgotten, which does no harm, since a
// kernel owns nothing. Threads: the one that made them.
#pragma once

#include <array>

#include "tests/gpu_sim/shadow.h"

namespace gpu_sim {

class Fibers {
 public:
  static constexpr int kMain = Shadow::kStacks;  // the thread's own stack

  // Each fiber runs body(argument, fiber), which must not return but switch to another.
  Fibers(void (*body)(void* argument, int fiber), void* argument) : body_(body), argument_(argument) {}
  // The fiber begins from its start when it is next switched to.
  void Start(int fiber);
  // REQUIRES: `from` runs. Returns when it is switched to again.
  void Switch(int from, int to);

 private:
  friend struct FiberEntry;

  void (*const body_)(void*, int);
  void* const argument_;
  std::array<void*, kMain + 1> contexts_{};  // where each goes on
  int from_ = kMain, to_ = kMain;            // of the last switch
};

}  // namespace gpu_sim
