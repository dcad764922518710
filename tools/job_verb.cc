#include "tools/job_verb.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "kernels/cuda/factory.h"
#include "runtime/config/paths.h"

namespace sluice::tools {

void AddJobArguments(CLI::App& verb, JobArguments* arguments) {
  verb.add_option("job", arguments->file, "the job file (text form of proto/job.proto)")->required()->type_name("JOB");
  verb.add_option("--set", arguments->overrides,
                  "changes a field of the job: training.steps=10 (may be given repeatedly)")
      ->type_name("PATH=VALUE")
      ->take_all()
      ->expected(1);
  verb.add_option("--device", arguments->device, "where ranks compute, whatever the job says: auto, cpu or cuda")
      ->type_name("DEVICE")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}));
}

std::string UserDirectory() { return sluice::UserDirectory(std::getenv("BUILD_WORKING_DIRECTORY")); }

std::string UserPath(absl::string_view path) { return ResolvePath(UserDirectory(), path); }

absl::StatusOr<std::string> ThisProgram() {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return absl::NotFoundError(absl::StrCat("/proc/self/exe: ", error.message()));
  return path.string();
}

std::vector<int> Processors() {
  std::vector<int> processors;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
      if (CPU_ISSET(processor, &set)) processors.push_back(processor);
    }
  }
  if (processors.empty()) processors.push_back(0);
  return processors;
}

absl::Status CheckIsNoInput(const std::string& output, const std::vector<std::string>& inputs) {
  std::error_code error;
  for (const std::string& input : inputs) {
    if (output.empty() || !std::filesystem::equivalent(UserPath(output), UserPath(input), error)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("'", output, "' is what is read; give the output another name, so that it isn't lost"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> OutputPath(const JobArguments& arguments, const std::string& output) {
  const std::string path = UserPath(output);
  std::error_code none_there;
  if (std::filesystem::equivalent(path, UserPath(arguments.file), none_there)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is the job itself; name another file for the output"));
  }
  return path;
}

absl::Status CheckDevice(const JobConfig& job) {
  if (job.layout.device != DeviceKind::kCuda) return absl::OkStatus();
  return Annotate(cuda::FindCudaDevices().status(), "layout.device is cuda");
}

absl::Status KeepToCpu(const JobArguments& arguments, JobConfig* job) {
  if (arguments.device == "cuda") return absl::UnimplementedError("--device cuda: this verb measures the CPU");
  job->layout.device = DeviceKind::kCpu;
  return absl::OkStatus();
}

std::string DescribeDevices(const JobConfig& job) {
  const auto found = cuda::FindCudaDevices();
  if (job.layout.device == DeviceKind::kCpu) {
    return found.ok() ? "on the CPU" : absl::StrCat("on the CPU: ", found.status().message());
  }
  const int ranks = job.layout.grid().ranks(), gpus = found.ok() ? static_cast<int>(found->size()) : 0;
  const int used = std::min(ranks, gpus);
  return absl::StrCat(ranks, ranks == 1 ? " rank on " : " ranks on ", used, used == 1 ? " GPU" : " GPUs",
                      gpus > 0 ? absl::StrCat(": ", found->front().name) : "");
}

namespace {

JobSource SourceOf(const JobArguments& arguments, ProfileFile profile_file) {
  JobSource source{.user_directory = UserDirectory(), .overrides = arguments.overrides, .profile_file = profile_file};
  if (!arguments.device.empty()) {
    source.overrides.push_back(absl::StrCat("layout.device=", arguments.device == "auto" ? "automatic" : arguments.device));
  }
  return source;
}

// What the job leaves open.
JobConfig Settled(JobConfig job, const ProcessShare& share) {
  if (job.layout.device == DeviceKind::kAuto) {
    job.layout.device = cuda::FindCudaDevices().ok() ? DeviceKind::kCuda : DeviceKind::kCpu;
  }
  if (job.layout.threads_per_rank == 0) {
    const int processors = share.processors > 0 ? share.processors : static_cast<int>(Processors().size());
    const int ranks = std::max(1, job.layout.grid().ranks() / share.processes);
    job.layout.threads_per_rank = std::max(1, processors / ranks);
  }
  return job;
}

}  // namespace

absl::StatusOr<JobConfig> LoadJob(const JobArguments& arguments, ProfileFile profile_file, const ProcessShare& share) {
  const JobSource source = SourceOf(arguments, profile_file);
  ASSIGN_OR_RETURN(JobConfig job, sluice::LoadJob(ResolvePath(source.user_directory, arguments.file), source));
  return Settled(std::move(job), share);
}

absl::StatusOr<JobConfig> JobOfText(absl::string_view text, const JobArguments& arguments) {
  ASSIGN_OR_RETURN(JobConfig job, ParseJob(text, arguments.file, SourceOf(arguments, ProfileFile::kRead)));
  return Settled(std::move(job), {});
}

}  // namespace sluice::tools
