// An executor to check the verifier against: carries tokens through slots, issues and runs by repeated scanning, and
// shares no code and no tables with scheduler/. Slow, for small programs.
#pragma once

#include <string>

#include "scheduler/program.h"

namespace sluice {

struct BruteForceResult {
  bool ok = false;
  bool stuck = false;  // nothing wrong was done, but the program does not end
  std::string what;
};

BruteForceResult BruteForceExecute(const Program& program);

}  // namespace sluice
