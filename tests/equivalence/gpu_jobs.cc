#include "tests/equivalence/gpu_jobs.h"

#include <cstdlib>
#include <fstream>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/check.h"
#include "tests/sim/sim_world.h"

namespace sluice {
namespace {

// Complete: dropout, tied weights, clipping, held-out text.
std::string JobText(const GpuJob& job, const std::string& device) {
  const std::string model = job.family == "gpt2" ? "family: 'gpt2' heads: 1 channels: 64 positions: 16 tied: true"
                                                 : absl::StrCat("family: 'llama' heads: 2 kv_heads: ", job.tp,
                                                                " channels: 128 width: 96 tied: false");
  return absl::StrCat("model { ", model, " layers: 3 dropout: 0.1 vocabulary: 256 }\n",
                      "data { text: 'text' hold_out { fraction: 0.1 } }\n", "training { steps: ", job.steps,
                      " batch: 8 micro_batches: 8 sequence: 16 precision: ", job.precision,
                      job.groups > 0 ? absl::StrCat(" gradient_groups: ", job.groups) : "", " }\n",
                      "optimizer { learning_rate: 0.003 minimum_learning_rate: 0.0003 warm_up: 3 clip_norm: 0.5 }\n",
                      "layout { device: ", device, " pp: ", job.pp, " dp: ", job.dp, " tp: ", job.tp,
                      " chunks: ", job.chunks, " zero1: ", job.zero1 != 0 ? "true" : "false",
                      " sequence_parallel: ", job.sequence_parallel != 0 ? "true" : "false",
                      " threads_per_rank: 1 pin: false }\n", "schedule { name: '", job.schedule, "' }\n");
}

// The fields of a job that are numbers, as `name=value` in its text; those with a usual value are left out where it is
// that.
template <class Job, class Visit>
void VisitNumbers(Job& job, Visit visit) {
  const GpuJob usual;
  visit("pp", job.pp, nullptr);
  visit("chunks", job.chunks, nullptr);
  visit("gpus", job.gpus, nullptr);
  visit("seed", job.seed, nullptr);
  visit("steps", job.steps, nullptr);
  visit("dp", job.dp, &usual.dp);
  visit("tp", job.tp, &usual.tp);
  visit("groups", job.groups, &usual.groups);
  visit("zero1", job.zero1, &usual.zero1);
  visit("sequence_parallel", job.sequence_parallel, &usual.sequence_parallel);
  visit("nccl", job.nccl, &usual.nccl);
}

}  // namespace

std::string ToText(const GpuJob& job) {
  std::string text = absl::StrCat(job.family, " ", job.precision, " ", job.schedule);
  VisitNumbers(job, [&](const char* name, const auto& value, const int* usual) {
    if (usual == nullptr || value != static_cast<uint64_t>(*usual)) absl::StrAppend(&text, " ", name, "=", value);
  });
  return text;
}

absl::StatusOr<GpuJob> ParseGpuJob(const std::string& text) {
  std::vector<std::string> words = absl::StrSplit(text, ' ', absl::SkipEmpty());
  GpuJob job;
  bool fits = words.size() >= 3;
  if (fits) job = {.family = words[0], .precision = words[1], .schedule = words[2]};
  for (size_t i = 3; i < words.size(); ++i) {
    bool known = false;
    VisitNumbers(job, [&](absl::string_view name, auto& value, const int*) {
      absl::string_view word = words[i];
      known |= absl::ConsumePrefix(&word, name) && absl::ConsumePrefix(&word, "=") && absl::SimpleAtoi(word, &value);
    });
    fits &= known;
  }
  if (fits) return job;
  return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not of the form \"", ToText(GpuJob{}), "\""));
}

GpuJobRunner::GpuJobRunner() {
  const char* temporary = std::getenv("TEST_TMPDIR");
  folder_ = absl::StrCat(temporary != nullptr ? temporary : "/tmp", "/gpu_jobs_XXXXXX");
  CHECK(mkdtemp(folder_.data()) != nullptr) << folder_;
  std::ofstream out(folder_ + "/text");
  for (int line = 0; line < 400; ++line) out << "line " << line << " says " << line * line << " and no more.\n";
}

absl::StatusOr<JobNumbers> GpuJobRunner::OnCpu(const GpuJob& job) const {
  GpuJob whole = {.family = job.family, .precision = job.precision, .schedule = "gpipe", .steps = job.steps};
  whole.groups = job.groups;
  return RunJob(JobText(whole, "cpu"), folder_);
}

GpuRun GpuJobRunner::OnGpus(const GpuJob& job, gpu_sim::MachineOptions options) const {
  GpuRun run;
  SimWorld world({.seed = job.seed});
  options.world = &world;
  options.devices = job.gpus;
  options.seed = job.seed;
  const gpu_sim::Machine machine(std::move(options));
  const auto on_step = [&](const Plan& plan, const TrainingOutcome& outcome) {
    run.counters.push_back(machine.counters());
    run.outcomes.push_back(outcome);
    run.program = plan.training;
  };
  run.numbers =
      RunJob(JobText(job, "cuda"), folder_,
             {.messages = job.nccl != 0 ? Messages::kNccl : Messages::kExchanged, .world = &world, .on_step = on_step});
  run.reports = machine.ReportText();
  for (const gpu_sim::Report& report : machine.reports()) {
    run.races += report.kind == gpu_sim::ReportKind::kRace ? report.times : 0;
  }
  run.wait_sites = machine.wait_sites();
  run.trace_hash = machine.trace_hash();
  return run;
}

}  // namespace sluice
