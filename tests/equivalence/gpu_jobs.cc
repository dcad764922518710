#include "tests/equivalence/gpu_jobs.h"

#include <cstdlib>
#include <fstream>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "tests/sim/sim_world.h"

namespace sluice {
namespace {

// Complete: dropout, tied weights, clipping, held-out text.
std::string JobText(const GpuJob& job, const std::string& device, int pp, const std::string& schedule, int chunks) {
  const std::string model = job.family == "gpt2"
                                ? "family: 'gpt2' heads: 1 channels: 64 positions: 16 tied: true"
                                : "family: 'llama' heads: 2 kv_heads: 1 channels: 128 width: 96 tied: false";
  return absl::StrCat("model { ", model, " layers: 3 dropout: 0.1 vocabulary: 256 }\n",
                      "data { text: 'text' hold_out { fraction: 0.1 } }\n", "training { steps: ", job.steps,
                      " batch: 8 micro_batches: 8 sequence: 16 precision: ", job.precision, " }\n",
                      "optimizer { learning_rate: 0.003 minimum_learning_rate: 0.0003 warm_up: 3 clip_norm: 0.5 }\n",
                      "layout { device: ", device, " pp: ", pp, " chunks: ", chunks,
                      " threads_per_rank: 1 pin: false }\n", "schedule { name: '", schedule, "' }\n");
}

}  // namespace

std::string ToText(const GpuJob& job) {
  return absl::StrCat(job.family, " ", job.precision, " pp=", job.pp, " ", job.schedule, " chunks=", job.chunks,
                      " gpus=", job.gpus, " seed=", job.seed, " steps=", job.steps);
}

absl::StatusOr<GpuJob> ParseGpuJob(const std::string& text) {
  const std::vector<std::string> words = absl::StrSplit(text, ' ');
  const auto error = [&] {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is not of the form \"", ToText(GpuJob{}), "\""));
  };
  if (words.size() != 8) return error();
  GpuJob job = {.family = words[0], .precision = words[1], .schedule = words[3]};
  const std::pair<size_t, std::pair<std::string, int*>> numbers[] = {
      {2, {"pp", &job.pp}}, {4, {"chunks", &job.chunks}}, {5, {"gpus", &job.gpus}}, {7, {"steps", &job.steps}}};
  for (const auto& [word, number] : numbers) {
    const std::vector<std::string> parts = absl::StrSplit(words[word], '=');
    if (parts.size() != 2 || parts[0] != number.first || !absl::SimpleAtoi(parts[1], number.second)) return error();
  }
  const std::vector<std::string> seed = absl::StrSplit(words[6], '=');
  if (seed.size() != 2 || seed[0] != "seed" || !absl::SimpleAtoi(seed[1], &job.seed)) return error();
  return job;
}

GpuJobRunner::GpuJobRunner() {
  const char* temporary = std::getenv("TEST_TMPDIR");
  folder_ = absl::StrCat(temporary != nullptr ? temporary : "/tmp", "/gpu_jobs_XXXXXX");
  CHECK(mkdtemp(folder_.data()) != nullptr) << folder_;
  std::ofstream out(folder_ + "/text");
  for (int line = 0; line < 400; ++line) out << "line " << line << " says " << line * line << " and no more.\n";
}

absl::StatusOr<JobNumbers> GpuJobRunner::OnCpu(const GpuJob& job) const {
  return RunJob(JobText(job, "cpu", 1, "gpipe", 1), folder_);
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
      RunJob(JobText(job, "cuda", job.pp, job.schedule, job.chunks), folder_, {.world = &world, .on_step = on_step});
  run.reports = machine.ReportText();
  for (const gpu_sim::Report& report : machine.reports()) {
    run.races += report.kind == gpu_sim::ReportKind::kRace ? report.times : 0;
  }
  run.wait_sites = machine.wait_sites();
  run.trace_hash = machine.trace_hash();
  return run;
}

}  // namespace sluice
