// sluice bench JOB: the time of a step beside the floor of this machine, measured in the same run.
//
// Floor of a step: the sum over its matrix products of FLOPs / the best rate of that shape (oneDNN in one call, or our own
// operation alone, whichever is faster), measured on as many threads at once as the job has, and shared evenly by them.
// Attention's products count at the best rate of any shape. Share of the floor = floor / measured step; a pipeline's
// bubble is part of what is missing.
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status.h"
#include "base/world.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/matmul_rate.h"
#include "kernels/profiled_device.h"
#include "runtime/data/batch.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"
#include "runtime/trainer/pipeline.h"
#include "tools/job_verb.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

struct Arguments {
  JobArguments job;
  int steps = 10;
};

struct Measured {
  std::vector<double> step_ms;
  double bubble = 0;
  std::vector<OperationTime> operations;  // of one step, all ranks; empty: not profiled
};

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

enum class Profiling { kOff, kOn };

// Two steps to warm up, then the measured ones.
absl::StatusOr<Measured> RunSteps(World* world, const Plan& plan, const Dataset& dataset, int steps, Profiling profiling) {
  const JobConfig& job = plan.job;
  std::vector<OperationProfile> profiles(plan.training.placement.ranks());
  PipelineOptions options{.threads_per_rank = job.layout.threads_per_rank,
                          .processors = job.layout.pin ? Processors() : std::vector<int>(),
                          .watchdog_seconds = 0};
  if (profiling == Profiling::kOn) {
    options.wrap_device = [&](Device* device, PipelineRank rank) { return NewProfiledDevice(device, &profiles[rank.index()]); };
  }
  ASSIGN_OR_RETURN(const auto pipeline, Pipeline::Create(world, plan, options));
  const BatchShape shape{.rows = job.training.batch,
                         .micro_batches = job.training.micro_batches,
                         .sequence = job.training.sequence,
                         .gradient_groups = job.training.gradient_groups};
  Batch even(shape), odd(shape);
  const BatchMaker batches(&dataset, shape, {}, job.training.seed);
  // As the trainer does; profiles are collected between steps.
  const bool post_validated = plan.post_validation.has_value();
  const int ahead = post_validated && profiling == Profiling::kOff ? 1 : 0;
  Measured measured;
  std::vector<double> bubbles;
  Nanoseconds ended = 0;
  std::array<Nanoseconds, 2> began = {};
  for (int step = -2; step < steps + ahead; ++step) {
    if (step < steps) {
      Batch* const batch = step % 2 == 0 ? &even : &odd;
      batches.Training(step + 2, batch);
      if (step == 0) {
        for (OperationProfile& profile : profiles) profile.Collect();
      }
      began[batch == &even ? 0 : 1] = world->Now();
      pipeline->StartStep({.micro_batches = batch->micro_batches, .learning_rate = 1e-4f, .update = step + 3});
    }
    const int finishes = step - ahead;
    if (finishes < -2) continue;
    ASSIGN_OR_RETURN(const TrainingOutcome outcome, pipeline->FinishStep());
    const Nanoseconds since = std::max(began[finishes % 2 == 0 ? 0 : 1], ended);
    ended = world->Now();
    if (finishes < 0) continue;
    measured.step_ms.push_back(static_cast<double>(ended - since) / kMillisecond);
    const TimelineMetrics metrics = Measure(outcome.timeline);
    bubbles.push_back(post_validated ? metrics.span_bubble : metrics.makespan_bubble);
  }
  measured.bubble = Median(std::move(bubbles));
  for (OperationProfile& profile : profiles) {
    for (OperationTime& time : profile.Collect()) {
      time.calls /= steps;
      time.time /= steps;
      time.flops /= steps;
      measured.operations.push_back(std::move(time));
    }
  }
  return measured;
}

cpu::MatmulKind KindOf(const std::string& operation) {
  if (operation == "linear forward") return cpu::MatmulKind::kForward;
  if (operation == "linear input gradient") return cpu::MatmulKind::kInputGradient;
  return cpu::MatmulKind::kWeightGradient;
}

// One thread's own operands for an operation, and the stream it runs on.
struct Bench {
  std::unique_ptr<Device> device;
  Buffer buffers[4];
  TensorView x, y, weight, packed;
  std::unique_ptr<Stream> stream;
};

absl::Status Prepare(World* world, const OperationTime& what, Bench* bench) {
  const LinearShape shape{what.n, what.k, what.compute};
  bench->device = cpu::NewCpuDevice(world, {.threads = 1});
  const Operations& operations = bench->device->operations();
  auto make = [&](int number, DType type, Shape size, TensorView* view) -> absl::Status {
    *view = {nullptr, type, size};
    ASSIGN_OR_RETURN(bench->buffers[number], bench->device->Allocate(view->bytes(), "rates"));
    view->data = bench->buffers[number].data();
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(make(0, what.compute, {what.m, what.k}, &bench->x));
  RETURN_IF_ERROR(make(1, what.compute, {what.m, what.n}, &bench->y));
  RETURN_IF_ERROR(make(2, DType::kF32, {what.n, what.k}, &bench->weight));
  RETURN_IF_ERROR(make(3, DType::kI32, {operations.PackedLinearBytes(shape) / 4 + 1}, &bench->packed));
  bench->stream = bench->device->NewStream("rates");
  operations.PackLinear(*bench->stream, shape, bench->weight, bench->packed);
  return absl::OkStatus();
}

void IssueOnce(const OperationTime& what, Bench& bench) {
  const LinearShape shape{what.n, what.k, what.compute};
  const Operations& operations = bench.device->operations();
  switch (KindOf(what.operation)) {
    case cpu::MatmulKind::kForward:
      operations.LinearForward(*bench.stream, {.shape = shape, .x = bench.x, .packed = bench.packed, .y = bench.y});
      break;
    case cpu::MatmulKind::kInputGradient:
      operations.LinearInputGradient(*bench.stream, {.shape = shape, .dy = bench.y, .packed = bench.packed, .dx = bench.x});
      break;
    case cpu::MatmulKind::kWeightGradient:
      operations.LinearWeightGradient(*bench.stream, {.shape = shape, .x = bench.x, .dy = bench.y, .dweight = bench.weight});
      break;
  }
}

// Our own operation, alone on each of `threads` threads at once: FLOPs a second and thread, best of several runs.
absl::StatusOr<double> OwnRate(World* world, const OperationTime& what, int threads) {
  constexpr int kRuns = 6, kCalls = 6;
  std::vector<Bench> benches(threads);
  for (Bench& bench : benches) RETURN_IF_ERROR(Prepare(world, what, &bench));
  std::vector<std::vector<EventRef>> ends(threads);
  for (int run = 0; run < kRuns; ++run) {
    for (int thread = 0; thread < threads; ++thread) {
      benches[thread].stream->Record();
      for (int call = 0; call < kCalls; ++call) IssueOnce(what, benches[thread]);
      ends[thread].push_back(benches[thread].stream->Record());
    }
  }
  const double flops = 2.0 * kCalls * static_cast<double>(what.m * what.n * what.k);
  double rate = 0;
  for (const auto& runs : ends) {
    Nanoseconds best = kForever;
    for (const EventRef& end : runs) {
      RETURN_IF_ERROR(world->Wait(end));
      best = std::min(best, end->ended() - end->began());
    }
    rate += flops * kSecond / static_cast<double>(std::max<Nanoseconds>(best, 1));
  }
  return rate / threads;
}

// One line of the table: all shapes of one operation.
struct Row {
  int64_t calls = 0;
  double ms = 0;
  double flops = 0;
  double floor_ms = 0;
};

struct Floor {
  std::map<std::string, Row> rows;
  double total_ms = 0;  // of all threads
};

absl::StatusOr<Floor> MeasureFloor(World* world, const std::vector<OperationTime>& operations, int threads) {
  Floor floor;
  std::map<std::tuple<std::string, int64_t, int64_t, int64_t, DType>, double> rates;
  double best_rate = 1;
  for (const OperationTime& time : operations) {
    if (time.m == 0) continue;
    double& rate = rates[{time.operation, time.m, time.n, time.k, time.compute}];
    if (rate == 0) {
      ASSIGN_OR_RETURN(rate, OwnRate(world, time, threads));
      rate = std::max(rate, cpu::LibraryRate(world, {KindOf(time.operation), time.m, time.n, time.k, time.compute}, threads));
      best_rate = std::max(best_rate, rate);
    }
    const double ms = time.flops / rate * 1e3;
    floor.rows[time.operation].floor_ms += ms;
    floor.total_ms += ms;
  }
  for (const OperationTime& time : operations) {
    Row& row = floor.rows[time.operation];
    row.calls += time.calls;
    row.ms += static_cast<double>(time.time) / kMillisecond;
    row.flops += time.flops;
    if (time.m != 0 || time.flops == 0) continue;
    row.floor_ms += time.flops / best_rate * 1e3;
    floor.total_ms += time.flops / best_rate * 1e3;
  }
  return floor;
}

void Print(const Plan& plan, const Measured& plain, const Measured& profiled, const Floor& floor, const std::string& device) {
  const JobConfig& job = plan.job;
  const int threads = job.layout.pp * job.layout.threads_per_rank;
  const double step = Median(plain.step_ms);
  const double floor_ms = floor.total_ms / threads;
  const auto [low, high] = std::minmax_element(plain.step_ms.begin(), plain.step_ms.end());
  std::printf("%s\n%s, %s, %d ranks of %d threads, %d micro-batches of %d x %d tokens, %s\n\n", device.c_str(),
              job.graph.name.c_str(), job.schedule.title().c_str(), job.layout.pp, job.layout.threads_per_rank,
              static_cast<int>(job.training.micro_batches), static_cast<int>(job.training.rows_per_micro_batch()),
              static_cast<int>(job.training.sequence), job.training.precision == Precision::kF32 ? "f32" : "bf16");
  std::printf("step             %9.1f ms   median of %zu, %.1f to %.1f\n", step, plain.step_ms.size(), *low, *high);
  std::printf("tokens/s         %9.0f\n",
              static_cast<double>(job.training.batch * job.training.sequence) / step * 1e3);
  std::printf("floor            %9.1f ms   matrix products at the best rate of each shape, on %d threads\n", floor_ms, threads);
  std::printf("share of floor   %9.1f %%\n", 100 * floor_ms / step);
  std::printf("bubble           %9.1f %%    planned %.1f %%\n\n", 100 * plain.bubble, 100 * plan.metrics.makespan_bubble);
  double total = 0;
  std::vector<std::pair<std::string, Row>> rows(floor.rows.begin(), floor.rows.end());
  for (const auto& [name, row] : rows) total += row.ms;
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.second.ms > b.second.ms; });
  std::printf("A step's operations, summed over ranks (profiled step %.1f ms):\n", Median(profiled.step_ms));
  std::printf("  %-24s %7s %9s %7s %9s %10s\n", "operation", "calls", "ms", "share", "GFLOP/s", "of floor");
  for (const auto& [name, row] : rows) {
    std::printf("  %-24s %7d %9.2f %6.1f%%", name.c_str(), static_cast<int>(row.calls), row.ms, 100 * row.ms / total);
    if (row.flops > 0) std::printf(" %9.1f %9.1f%%", row.flops / row.ms / 1e6, 100 * row.floor_ms / row.ms);
    std::printf("\n");
  }
}

absl::Status RunBench(const Arguments& arguments) {
  ASSIGN_OR_RETURN(const JobConfig job, LoadJob(arguments.job));
  ASSIGN_OR_RETURN(const Dataset dataset, Dataset::Open(job.data, job.graph.vocabulary, job.training.sequence));
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(job));
  const auto world = NewRealWorld();
  ASSIGN_OR_RETURN(const Measured plain, RunSteps(world.get(), plan, dataset, arguments.steps, Profiling::kOff));
  ASSIGN_OR_RETURN(const Measured profiled, RunSteps(world.get(), plan, dataset, arguments.steps, Profiling::kOn));
  ASSIGN_OR_RETURN(const Floor floor, MeasureFloor(world.get(), profiled.operations,
                                                   job.layout.pp * job.layout.threads_per_rank));
  Print(plan, plain, profiled, floor, cpu::NewCpuDevice(world.get(), {.threads = 1})->description());
  return absl::OkStatus();
}

}  // namespace

Run AddBench(CLI::App& verb) {
  auto arguments = std::make_shared<Arguments>();
  AddJobArguments(verb, &arguments->job);
  verb.add_option("--steps", arguments->steps, "steps to measure")->check(CLI::Range(1, 1000000));
  return [arguments] { return RunBench(*arguments); };
}

}  // namespace sluice::tools
