// Runs a job's training steps in this process and gives back every number that must not depend on the layout.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/outcome.h"

namespace sluice {

struct JobNumbers {
  std::vector<float> losses;                             // sums of every micro-batch of every step, in order
  std::vector<float> norms;                              // of every step
  std::map<std::string, std::vector<float>> parameters;  // by global name, after the last step
  std::vector<float> held_out;                           // sums of every micro-batch of one evaluation batch
};

// How messages move: slots are exchanged between CPU ranks, copied from device to device as between GPUs of one
// process, or sent over NCCL as between GPUs of several.
enum class Messages : uint8_t { kExchanged, kCopied, kNccl };

struct RunOptions {
  Messages messages = Messages::kExchanged;
  World* world = nullptr;                                                         // null: a real one
  std::function<void(const Plan& plan, const TrainingOutcome& outcome)> on_step;  // after each step; may be null
};

// `job` is the text of a job file whose data lies in `folder`. What leaves the device open runs on the CPU.
absl::StatusOr<JobNumbers> RunJob(const std::string& job, const std::string& folder, const RunOptions& options = {});

// Empty if all is equal bit for bit; else what differs first.
std::string Difference(const JobNumbers& a, const JobNumbers& b);

}  // namespace sluice
