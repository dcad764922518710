// Times a program by discrete events, in the model of program.h: issue lanes, queues, rendezvous. Linear in the number
// of actions (times the messages in flight, where they compete). And a leaner model for bare schedules, which search
// and tests of published numbers use.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "scheduler/network.h"
#include "scheduler/program.h"
#include "scheduler/schedule.h"
#include "scheduler/timeline.h"
#include "scheduler/verifier.h"

namespace sluice {

struct StageCosts {
  int64_t forward_ns = 1;
  int64_t input_gradient_ns = 1;
  int64_t weight_gradient_ns = 1;
  int64_t backward_ns = 2;       // B, the two at once
  int64_t optimizer_ns = 0;      // this stage's share of the rank's OPTIMIZER_STEP
  int64_t activation_bytes = 0;  // message to the next stage
  int64_t gradient_bytes = 0;    // message to the previous stage
  int64_t reduce_bytes = 0;      // partial gradients that each of the stage's holders gives to REDUCE_GRAD
  int64_t gather_bytes = 0;      // summed gradients, or parameters, that they gather
};

struct Costs {
  std::vector<StageCosts> stages;          // per stage
  int64_t transfer_latency_ns = 0;         // of every transfer between ranks
  double transfer_bytes_per_second = 0;    // 0: unlimited
  int64_t collective_ns = 0;               // of every COLLECTIVE and REDUCE_GRAD once all members are there, and bytes:
  double collective_bytes_per_second = 0;  // into each member; 0: unlimited
  int64_t norm_bytes = 0;                  // of the squared norms of all ranks
  std::vector<int64_t> tied_bytes;         // by TiedTensor::tensor: partials of all groups of one use; missing: 0
  std::vector<StageBytes> stage_bytes;     // memory samples; empty: none
};

// The same costs for each of `stages` stages.
Costs UniformCosts(int stages, const StageCosts& stage);

// Whether a rank's issuing thread waits until a compute action has its input and the slot that it writes. It does where
// slots change hands on the host. Where they stay and the device waits, as on GPUs, it issues everything at once.
enum class Issue : uint8_t { kWaits, kAhead };

// What disturbs a step. The same numbers from the same seed, whatever the order of events.
struct Scenario {
  Issue issue = Issue::kWaits;
  NetworkOptions network;        // messages that compete; bytes matter between hosts
  double jitter = 0;             // each action, collective and message takes up to this share more or less; < 1
  uint64_t seed = 0;             // of the jitter
  std::vector<double> slowdown;  // per rank, of what it computes; empty: 1
};

// REQUIRES: Verify(program) is OK, one entry in costs.stages per stage. Errors: FAILED_PRECONDITION if it can't end.
absl::StatusOr<Timeline> Simulate(const Program& program, const Costs& costs, const Scenario& scenario = {});

// Programs one after the other, as the trainer runs them: a rank begins the next one when its own list of the one
// before has ended, whatever the other ranks do. Times count from the beginning of the first. Errors: as Simulate.
absl::StatusOr<std::vector<Timeline>> SimulateSteps(absl::Span<const Program* const> steps, const Costs& costs);

// Compute only: an action starts when its rank is free and its inputs have ended, plus latency and transfer time when
// they come from another rank. No queues, slots or rendezvous. Errors: as Simulate.
absl::StatusOr<Timeline> SimulateSchedule(const Schedule& schedule, const Costs& costs);

}  // namespace sluice
