// Runs a job's training steps in this process and gives back every number that must not depend on the layout.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "runtime/checkpoint/parameter_source.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/outcome.h"
#include "runtime/trainer/snapshot.h"

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

// What a run has to keep so that another one can go on from it, in memory: complete tensors.
class SavedRun final : public ParameterSource {
 public:
  int64_t step = 0;  // steps done
  int64_t updates = 0;

  // Errors: an element is there twice, or a part doesn't lie in its tensor.
  absl::Status Add(const RankSnapshot& snapshot);
  // Errors: an element of a tensor that there is isn't there.
  absl::Status CheckComplete() const;
  absl::Status Check(const LayerGraph& graph) const override;
  absl::Status Read(StateKind kind, absl::string_view name, const Slice& block, absl::Span<float> out) const override;

 private:
  struct Tensor {
    int64_t columns = 0;
    std::vector<float> values;
    std::vector<bool> there;
  };
  std::map<std::pair<StateKind, std::string>, Tensor> tensors_;
};

struct RunOptions {
  Messages messages = Messages::kExchanged;
  World* world = nullptr;                                                         // null: a real one
  std::function<void(const Plan& plan, const TrainingOutcome& outcome)> on_step;  // after each step; may be null
  // Where to save to after saved->step steps, while the next one runs; the run goes on. Null: nowhere.
  SavedRun* saved = nullptr;
  // What to go on from; the numbers are those of the steps after it. Null: from the beginning.
  const SavedRun* resumed = nullptr;
};

// `job` is the text of a job file whose data lies in `folder`. What leaves the device open runs on the CPU.
absl::StatusOr<JobNumbers> RunJob(const std::string& job, const std::string& folder, const RunOptions& options = {});

// Without the losses and norms of the first steps.
JobNumbers After(int64_t steps, const JobNumbers& numbers);

// Empty if all is equal bit for bit; else what differs first.
std::string Difference(const JobNumbers& a, const JobNumbers& b);

}  // namespace sluice
