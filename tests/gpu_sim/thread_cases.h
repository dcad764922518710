// Small kernels with one error each, and the same without it.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

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

}  // namespace gpu_sim
