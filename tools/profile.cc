// sluice profile JOB: where a step's time goes, by operation and by layer, each beside its floor (measure/floor.h), and
// the layers' costs as a file that the job's layout.profile reads. Or, with --algorithms, which algorithm multiplies
// which product fastest on the GPUs, as a file that layout.algorithms reads.
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "base/world.h"
#include "kernels/cuda/matmul_choices.h"
#include "runtime/config/layer_profile.h"
#include "runtime/config/paths.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "runtime/trace/file_writer.h"
#include "tools/job_verb.h"
#include "tools/measure/bench_job.h"
#include "tools/measure/layers.h"
#include "tools/measure/run.h"
#include "tools/measure/text.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

struct Arguments {
  JobArguments job;
  int steps = 5;
  bool no_floor = false;
  std::string output;
  std::string algorithms;
};

std::vector<int64_t> LayersPerStage(const Plan& plan) {
  std::vector<int64_t> layers;
  const std::vector<int>& cuts = plan.partition.cuts;
  for (size_t stage = 0; stage + 1 < cuts.size(); ++stage) layers.push_back(cuts[stage + 1] - cuts[stage]);
  return layers;
}

std::string CutLine(const char* costs, const Plan& plan, double measured_ms) {
  const double ms = static_cast<double>(plan.metrics.step_ns) / kMillisecond;
  const std::string beside =
      measured_ms > 0 ? absl::StrFormat(", %+.1f %% of the measured %.1f ms", 100 * (ms / measured_ms - 1), measured_ms)
                      : "";
  return absl::StrFormat("  %-22s layers %s, predicted step %.1f ms%s\n", costs,
                         absl::StrJoin(LayersPerStage(plan), " + "), ms, beside);
}

// The cut before and after, and how well either predicts the step that was measured.
absl::Status PrintCuts(const Plan& plan, const LayerProfile& profile, double measured_ms) {
  JobConfig job = plan.job;
  job.layout.measured = std::make_shared<const LayerProfile>(profile);
  ASSIGN_OR_RETURN(const Plan after, MakePlan(job));
  job.layout.layers_per_stage = LayersPerStage(plan);
  ASSIGN_OR_RETURN(const Plan same_cut, MakePlan(job));
  std::printf("\nCuts:\n%s%s", CutLine("estimated costs", plan, measured_ms).c_str(),
              CutLine("measured, same cut", same_cut, measured_ms).c_str());
  std::printf("%s", CutLine("measured, cut anew", after, 0).c_str());
  return absl::OkStatus();
}

// The choices of all GPUs, from a short run of the job whose numbers nobody uses.
absl::Status MeasureAlgorithms(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const JobConfig job, LoadJob(arguments.job, ProfileFile::kIgnored));
  if (job.layout.device != DeviceKind::kCuda) {
    return absl::FailedPreconditionError(
        "--algorithms measures GPUs, and this job runs on the CPU (`sluice devices` says why; --device cuda asks for them)");
  }
  ASSIGN_OR_RETURN(const Dataset dataset, Dataset::Open(job.data, job.graph.vocabulary, job.training.sequence));
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(job));
  ASSIGN_OR_RETURN(const std::string path, OutputPath(arguments.job, arguments.algorithms));
  ASSIGN_OR_RETURN(const auto output, FileWriter::Create(path));
  const auto world = NewRealWorld();
  std::mutex mutex;
  std::vector<std::string> texts;
  const auto keep = [&](const std::string& text) {
    const std::lock_guard lock(mutex);
    texts.push_back(text);
  };
  RETURN_IF_ERROR(RunSteps(world.get(), plan, dataset, {.steps = 1, .algorithms_measured = keep}).status());
  ASSIGN_OR_RETURN(output->buffer(), cuda::MergeMatmulChoices(texts));
  RETURN_IF_ERROR(output->Finish());
  std::printf("Algorithms: %s  (in a job: layout { algorithms: \"FILE\" })\n", path.c_str());
  return absl::OkStatus();
}

absl::Status RunProfile(const Arguments& arguments) {
  if (!arguments.algorithms.empty()) return MeasureAlgorithms(arguments);
  ASSIGN_OR_RETURN(JobConfig job, LoadJob(arguments.job, ProfileFile::kIgnored));
  RETURN_IF_ERROR(KeepToCpu(arguments.job, &job));
  ASSIGN_OR_RETURN(const Dataset dataset, Dataset::Open(job.data, job.graph.vocabulary, job.training.sequence));
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(job));
  std::string path = job.layout.profile;
  if (!arguments.output.empty()) {
    ASSIGN_OR_RETURN(path, OutputPath(arguments.job, arguments.output));
  }
  std::unique_ptr<FileWriter> output;  // what is wrong with it is known before anything is measured
  if (!path.empty()) {
    ASSIGN_OR_RETURN(output, FileWriter::Create(path));
  }
  const auto world = NewRealWorld();
  const Floors floors = arguments.no_floor ? Floors::kLeftOut : Floors::kMeasured;
  ASSIGN_OR_RETURN(const Benchmark benchmark,
                   RunBenchmark(world.get(), plan, dataset, {.steps = arguments.steps, .floors = floors}));
  const StepByLayer step =
      ByLayer(benchmark.profiled.operations, job.graph.nodes.size(), job.layout.threads_per_rank, benchmark.rates);
  std::printf("%s%s", ToText(benchmark.result).c_str(), ToText(plan, step).c_str());
  const LayerProfile profile = ProfileOf(plan, step, benchmark.measured_costs, benchmark.result.processor);
  RETURN_IF_ERROR(PrintCuts(plan, profile, Median(benchmark.result.step_ms)));
  if (output == nullptr) {
    std::printf(
        "\nWritten nowhere: -o FILE writes the layers' costs, and layout { profile: \"FILE\" } in a job reads them.\n");
    return absl::OkStatus();
  }
  output->buffer() = ToText(profile);
  RETURN_IF_ERROR(output->Finish());
  std::printf("\nProfile: %s  (in a job: layout { profile: \"FILE\" })\n", path.c_str());
  return absl::OkStatus();
}

}  // namespace

Run AddProfile(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  AddJobArguments(verb, &arguments->job);
  verb.add_option("--steps", arguments->steps, "steps to measure")->check(CLI::Range(1, 1000000));
  verb.add_flag("--no-floor", arguments->no_floor, "don't measure the machine's rates, which takes some seconds");
  verb.add_option("-o,--output", arguments->output,
                  "where the layers' costs go; the file that the job's layout.profile names if left out")
      ->type_name("FILE");
  verb.add_option("--algorithms", arguments->algorithms,
                  "measure nothing but which algorithms multiply the job's products fastest on its GPUs, and write that")
      ->type_name("FILE");
  return [arguments] { return RunProfile(*arguments); };
}

}  // namespace sluice::tools
