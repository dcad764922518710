// sluice bench JOB: the time of a step beside the floor of this machine, measured in the same run. What a floor is:
// measure/floor.h; when something has changed: measure/compare.h.
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/world.h"
#include "kernels/cuda/factory.h"
#include "runtime/config/paths.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "runtime/trace/file_writer.h"
#include "tools/job_verb.h"
#include "tools/measure/bench_job.h"
#include "tools/measure/compare.h"
#include "tools/measure/gpu_shares.h"
#include "tools/measure/process.h"
#include "tools/measure/text.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

struct Arguments {
  JobArguments job;
  int steps = 10;
  bool shapes = false;
  bool no_floor = false;
  std::string output;
  std::string compare;
  std::string against;
  int rounds = 5;
  bool fail_on_slower = false;
};

absl::Status Report(const std::vector<Change>& changes, const Arguments& arguments) {
  std::printf("%s", ToText(changes).c_str());
  if (!arguments.fail_on_slower || !changes.front().slower()) return absl::OkStatus();
  return absl::FailedPreconditionError("the step is slower by more than the noise (--fail-on-slower)");
}

absl::Status RunHere(const Arguments& arguments) {
  const std::string directory = UserDirectory();
  ASSIGN_OR_RETURN(const JobConfig job, LoadJob(arguments.job));
  RETURN_IF_ERROR(CheckDevice(job));
  ASSIGN_OR_RETURN(const Dataset dataset, Dataset::Open(job.data, job.graph.vocabulary, job.training.sequence));
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(job));
  const auto world = NewRealWorld();
  // What is wrong with the files is known before anything is measured.
  BenchResult before;
  if (!arguments.compare.empty()) {
    const std::string path = ResolvePath(directory, arguments.compare);
    ASSIGN_OR_RETURN(before, ReadResult(path));
    RETURN_IF_ERROR(CheckComparable(before, EmptyResult(world.get(), plan), path));
  }
  std::unique_ptr<FileWriter> output;
  if (!arguments.output.empty()) {
    ASSIGN_OR_RETURN(const std::string path, OutputPath(arguments.job, arguments.output));
    ASSIGN_OR_RETURN(output, FileWriter::Create(path));
  }
  const bool on_cpu = job.layout.device == DeviceKind::kCpu;  // whose rates are known
  const Floors floors = arguments.no_floor || !on_cpu ? Floors::kLeftOut : Floors::kMeasured;
  ASSIGN_OR_RETURN(const Benchmark benchmark,
                   RunBenchmark(world.get(), plan, dataset, {.steps = arguments.steps, .floors = floors}));
  const BenchResult& result = benchmark.result;
  std::printf("%s", ToText(result).c_str());
  if (job.layout.device == DeviceKind::kCuda) {
    ASSIGN_OR_RETURN(const std::vector<cuda::CudaDeviceInfo> gpus, cuda::FindCudaDevices());
    std::printf("%s", ToText(SharesOf(result, job, gpus.front().name)).c_str());
  }
  if (arguments.shapes) std::printf("%s", ShapesToText(result).c_str());
  if (output != nullptr) {
    output->buffer() = ToJson(result);
    RETURN_IF_ERROR(output->Finish());
  }
  if (arguments.compare.empty()) return absl::OkStatus();
  std::printf("\nBeside %s (%s):\n", arguments.compare.c_str(), before.program.c_str());
  return Report(Compare(before, result, kSmallestNoiseApart), arguments);
}

// A folder that goes with its owner.
class TemporaryFolder {
 public:
  static absl::StatusOr<TemporaryFolder> Create() {
    std::error_code error;
    std::string path = (std::filesystem::temp_directory_path(error) / "sluice-bench.XXXXXX").string();
    if (error || mkdtemp(path.data()) == nullptr) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot make the folder ", path, " for results; set TMPDIR"));
    }
    return TemporaryFolder(std::move(path));
  }
  TemporaryFolder(TemporaryFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  TemporaryFolder& operator=(TemporaryFolder&&) = delete;
  ~TemporaryFolder() {
    std::error_code error;
    if (!path_.empty()) std::filesystem::remove_all(path_, error);
  }
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// One round of one program, in a process of its own.
absl::StatusOr<BenchResult> RunRound(const std::string& program, const Arguments& arguments, const std::string& file) {
  std::vector<std::string> words = {
      "bench", arguments.job.file, "--steps", absl::StrCat(arguments.steps), "--no-floor", "-o", file};
  for (const std::string& assignment : arguments.job.overrides) words.insert(words.end(), {"--set", assignment});
  RETURN_IF_ERROR(RunProgram(program, words));
  absl::StatusOr<BenchResult> result = ReadResult(file);
  if (result.ok()) return result;
  return absl::InvalidArgumentError(absl::StrCat(program, " wrote no result that can be read (",
                                                 result.status().message(), "); is it a sluice with `bench -o`?"));
}

// Rounds of the other program and of this one in turn, so that what disturbs the machine disturbs both.
absl::Status RunAgainst(const Arguments& arguments) {
  RETURN_IF_ERROR(LoadJob(arguments.job).status());
  const std::string other = UserPath(arguments.against);
  ASSIGN_OR_RETURN(const std::string self, ThisProgram());
  ASSIGN_OR_RETURN(const TemporaryFolder folder, TemporaryFolder::Create());
  std::vector<BenchResult> before, after;
  std::printf("A is %s, B is this program; steps in ms, medians of %d:\n", arguments.against.c_str(), arguments.steps);
  for (int round = 0; round < arguments.rounds; ++round) {
    for (const bool theirs : {true, false}) {
      ASSIGN_OR_RETURN(BenchResult result,
                       RunRound(theirs ? other : self, arguments, absl::StrCat(folder.path(), "/result.json")));
      std::printf("  %s %10.2f%s", theirs ? "A" : "B", Median(result.step_ms), theirs ? "" : "\n");
      std::fflush(stdout);
      (theirs ? before : after).push_back(std::move(result));
    }
    RETURN_IF_ERROR(CheckComparable(before.back(), after.back(), arguments.against));
  }
  std::printf("\n");
  return Report(Compare(MergeRounds(before), MergeRounds(after), kSmallestNoiseAlternating), arguments);
}

absl::Status RunBench(const Arguments& arguments) {
  if (arguments.fail_on_slower && arguments.compare.empty() && arguments.against.empty()) {
    return absl::InvalidArgumentError(
        "--fail-on-slower compares with something: give --compare FILE or --against PROGRAM");
  }
  return arguments.against.empty() ? RunHere(arguments) : RunAgainst(arguments);
}

}  // namespace

Run AddBench(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  AddJobArguments(verb, &arguments->job);
  verb.add_option("--steps", arguments->steps, "steps to measure")->check(CLI::Range(1, 1000000));
  verb.add_flag("--shapes", arguments->shapes, "print the rates of every matrix product's shape");
  verb.add_flag("--no-floor", arguments->no_floor, "measure steps and operations only, not the machine's rates");
  CLI::Option* const output =
      verb.add_option("-o,--output", arguments->output, "write the result, as JSON")->type_name("FILE");
  CLI::Option* const compare = verb.add_option("--compare", arguments->compare,
                                               "say what changed since an earlier result of this machine and job")
                                   ->type_name("FILE");
  verb.add_option("--against", arguments->against,
                  "measure another sluice program and this one in turn, and say what changed")
      ->type_name("PROGRAM")
      ->excludes(compare)
      ->excludes(output);
  verb.add_option("--rounds", arguments->rounds, "of each program with --against")->check(CLI::Range(1, 1000));
  verb.add_flag("--fail-on-slower", arguments->fail_on_slower,
                "with --compare or --against: fail if the step is slower by more than the noise");
  return [arguments] { return RunBench(*arguments); };
}

}  // namespace sluice::tools
