// What all verbs that take a job have in common: the file, `--set`, the user's directory, the machine's processors.
#pragma once

#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/config/job.h"

namespace sluice::tools {

struct JobArguments {
  std::string file;
  std::vector<std::string> overrides;
  std::string device;  // in place of layout.device; empty: as the job says
};

// Adds the arguments JOB and --set; they are filled when the command line is parsed.
void AddJobArguments(CLI::App& verb, JobArguments* arguments);

// What one of several processes has.
struct ProcessShare {
  int processes = 1;   // of the job, each with as many ranks
  int processors = 0;  // that this process may use; 0: all of Processors()
};

// Reads the job. What it leaves open is settled: threads_per_rank, the processors of this process shared among its ranks;
// and the device, GPUs if this program finds any.
absl::StatusOr<JobConfig> LoadJob(const JobArguments& arguments, ProfileFile profile_file = ProfileFile::kRead,
                                  const ProcessShare& share = {});

// The same of a job that a verb makes from its own options; `arguments.file` names them in errors.
absl::StatusOr<JobConfig> JobOfText(absl::string_view text, const JobArguments& arguments);

// Whether this machine has what the job computes on. FAILED_PRECONDITION: it wants GPUs, and why there are none.
absl::Status CheckDevice(const JobConfig& job);
// For verbs that measure the CPU: the job's device is that.
absl::Status KeepToCpu(const JobArguments& arguments, JobConfig* job);
// "4 ranks on 2 GPUs: NVIDIA H100 80GB HBM3", or "on the CPU", and why if nobody has asked for that.
std::string DescribeDevices(const JobConfig& job);

// Where a verb's output goes, as the user typed it. INVALID_ARGUMENT: it is the job file itself.
absl::StatusOr<std::string> OutputPath(const JobArguments& arguments, const std::string& output);

// Where the user stands, also under `bazel run`; and a path as the user typed it.
std::string UserDirectory();
std::string UserPath(absl::string_view path);
// An output that is one of the inputs would overwrite it: INVALID_ARGUMENT.
absl::Status CheckIsNoInput(const std::string& output, const std::vector<std::string>& inputs);
// The path of this very program, for who starts it again.
absl::StatusOr<std::string> ThisProgram();
// The numbers of the processors that this process may use; at least one.
std::vector<int> Processors();

}  // namespace sluice::tools
