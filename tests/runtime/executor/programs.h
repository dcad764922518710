// Programs for the executor's tests: generated ones, and hand-written orders with several stages a rank and split
// backward passes.
#pragma once

#include <string>

#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "scheduler/program.h"
#include "scheduler/verifier.h"

namespace sluice {

struct ProgramChoice {
  std::string schedule;  // a generator's name, or "split": all F, then all I, then all W; overlapping pairs flagged
  int ranks = 1;
  int micro_batches = 1;
  bool v_placement = false;  // of "split": 2p stages, down and up again; else two chunks in a loop
  bool tied = false;
  QueuePolicy queues = QueuePolicy::kOnePerDirection;
  int replicas = 1;
  bool zero1 = false;
};

// "1f1b p=3 m=5 queues=1"
std::string ToString(const ProgramChoice& choice);

// Lowered and proven. Fails the program with a CHECK if the choice can't be.
Program MakeProgram(const ProgramChoice& choice);

}  // namespace sluice
