// The machine of a program that was built for the simulated GPU by hand (--config=cuda_sim) and has no test's machine.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "tests/gpu_sim/machine.h"

namespace gpu_sim {

// "devices=4,seed=1,threads=0,memory_mib=512": how many devices, the seed of the order of execution, whether every CUDA
// thread runs, each device's memory. Missing ones take their defaults; options.world stays null. Errors:
// INVALID_ARGUMENT names the word.
absl::StatusOr<MachineOptions> ParseMachineOptions(const std::string& text);

// A machine as the environment variable GPU_SIM says, in real time, for the rest of the program. At its end, reports
// are printed and the program exits with 1 if there are any.
void InstallMachineOfEnvironment();

}  // namespace gpu_sim
