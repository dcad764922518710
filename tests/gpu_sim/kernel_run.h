// One launch of a kernel in which every CUDA thread runs, block by block, on the calling thread: slow, and it sees all
// (block.h, access_check.h). What the kernel reads and writes is held to what its launcher declared.
//
// Threads: any, one at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/gpu_sim/include/gpu_sim_launch.h"
#include "tests/gpu_sim/report.h"

namespace gpu_sim {

struct RunOptions {
  uint64_t seed = 1;  // chooses the order of blocks and threads
  // The power of the checks: the barrier at this place (RunResult::barriers) orders nothing.
  std::string barrier_left_out;
};

struct RunResult {
  std::vector<Report> reports;
  bool finished = false;              // false: it was stopped at what a device couldn't have gone on from
  std::vector<std::string> barriers;  // places of barriers and waits for copies that were reached
};

// REQUIRES: its shape is what the runtime accepts.
RunResult RunEveryThread(const KernelLaunch& launch, const RunOptions& options);

}  // namespace gpu_sim
