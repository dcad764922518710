// Small whole jobs on simulated GPUs: the real trainer, executor, transport and device, in virtual time, in an order
// that the seed chooses.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/outcome.h"
#include "tests/equivalence/run_job.h"
#include "tests/gpu_sim/machine.h"

namespace sluice {

struct GpuJob {
  std::string family = "gpt2";  // or llama
  std::string precision = "f32";
  int pp = 1;
  std::string schedule = "1f1b";
  int chunks = 1;
  int gpus = 1;  // fewer than ranks: some share
  uint64_t seed = 1;
  int steps = 20;
  int dp = 1, tp = 1;
  int groups = 0;  // of gradients; 0: as the layout has them
  int zero1 = 0, sequence_parallel = 0;
  int nccl = 0;  // messages go over NCCL: each rank has a GPU of its own

  int ranks() const { return pp * dp * tp; }
};

// "gpt2 bf16 interleaved_1f1b pp=2 chunks=2 gpus=2 seed=7 steps=20", and " dp=2 nccl=1" and so on where they are not as
// usual; and back. INVALID_ARGUMENT shows the form.
std::string ToText(const GpuJob& job);
absl::StatusOr<GpuJob> ParseGpuJob(const std::string& text);

struct GpuRun {
  absl::StatusOr<JobNumbers> numbers = absl::UnknownError("not run");
  std::string reports;  // the machine's, empty if there are none
  int64_t races = 0;
  std::vector<std::string> wait_sites;
  std::vector<gpu_sim::Counters> counters;  // after each step
  std::vector<TrainingOutcome> outcomes;    // of each step
  Program program;
  uint64_t trace_hash = 0;
};

// Makes a folder with the job's text and runs jobs in it.
class GpuJobRunner {
 public:
  GpuJobRunner();
  // By the CPU device, one rank.
  absl::StatusOr<JobNumbers> OnCpu(const GpuJob& job) const;
  // `options` without world, devices and seed, which are the job's.
  GpuRun OnGpus(const GpuJob& job, gpu_sim::MachineOptions options = {}) const;

 private:
  std::string folder_;
};

}  // namespace sluice
