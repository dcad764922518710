// What the system knows about this process, and running another program.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace sluice::tools {

struct ProcessMemory {
  int64_t bytes = 0;       // resident now
  int64_t peak_bytes = 0;  // most ever resident
};
// Zeroes where the system doesn't tell.
ProcessMemory MemoryOfProcess();

// Seconds since the process was started; 0 where the system doesn't tell.
double AgeOfProcess();

// Runs a program to its end, without its standard output. Errors: that it couldn't be started, or that it failed, with
// the last lines of its standard error.
absl::Status RunProgram(const std::string& program, const std::vector<std::string>& arguments);

}  // namespace sluice::tools
