// Small kernels with one error each, and the same without it.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "tests/gpu_sim/barrier_power.h"
#include "tests/gpu_sim/kernel_run.h"

namespace gpu_sim {

struct ThreadCase {
  std::string name;
  int line = 0;        // of the error, in thread_cases.cu
  std::string report;  // a part of what is said of it
  // What the launches of the wrong kernel (or the right one) say.
  std::function<RunResult(bool wrong, uint64_t seed)> run;
};

inline void PrintTo(const ThreadCase& one, std::ostream* out) { *out << one.name; }

std::vector<ThreadCase> ThreadCases();

// A kernel whose buffer is freed before it runs.
RunResult RunOnFreedMemory();
// The sums of x up to each element, in each block of 64; nothing if there was a report. `redundant`: with one barrier
// more than is needed.
std::vector<float> RunPrefixSums(const std::vector<float>& x, bool redundant, uint64_t seed, BarrierPower* power);
// Two blocks of which each passes `barriers` barriers before it writes the same word: one race.
RunResult RunLongBlocks(int barriers);
// A thread that needs a megabyte of stack.
void RunDeepThread();

}  // namespace gpu_sim
