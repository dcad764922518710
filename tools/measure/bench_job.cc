#include "tools/measure/bench_job.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "kernels/cpu/cpu_device.h"
#include "runtime/config/layer_profile.h"
#include "runtime/trainer/breakdown.h"
#include "scheduler/simulate.h"
#include "tools/job_verb.h"
#include "tools/measure/process.h"
#include "tools/measure/rates.h"
#include "tools/version.h"

namespace sluice::tools {
namespace {

// A GPU's time is its own.
int ThreadsPerRank(const JobConfig& job) {
  return job.layout.device == DeviceKind::kCuda ? 1 : job.layout.threads_per_rank;
}

std::string ProcessorOf(World* world, const JobConfig& job) {
  if (job.layout.device == DeviceKind::kCuda) return DescribeDevices(job);
  return cpu::NewCpuDevice(world, {.threads = 1})->description();
}

std::vector<int> ProcessorsFor(const Plan& plan) { return plan.job.layout.pin ? Processors() : std::vector<int>(); }

double Milliseconds(int64_t ns) { return static_cast<double>(ns) / kMillisecond; }

// What the steps' timelines say: bubble, prediction, overhead.
absl::Status AddTimelines(const Plan& plan, const StepRun& run, Benchmark* benchmark) {
  BenchResult& result = benchmark->result;
  const Placement& placement = plan.training.placement;
  const bool post_validated = plan.post_validation.has_value();
  const RankGrid grid = plan.job.layout.grid();
  benchmark->measured_costs = MeasuredCosts(PipelinesOf(run.timelines, grid), placement, plan.costs);
  std::vector<double> bubbles, ends, overheads;
  for (size_t step = 0; step < run.timelines.size(); ++step) {
    const TimelineMetrics metrics = Measure(run.timelines[step]);
    bubbles.push_back(post_validated ? metrics.span_bubble : metrics.makespan_bubble);
    ends.push_back(Milliseconds(metrics.step_ns));
    int64_t worst = 0;
    for (const Timeline& pipeline : PipelinesOf(run.timelines[step], grid)) {
      for (const RankIdle& idle : ExplainIdle(pipeline, placement)) worst = std::max(worst, idle.overhead_ns);
    }
    // What the step takes beyond its timeline passes between two steps.
    overheads.push_back((Milliseconds(worst) + run.step_ms[step] - ends.back()) / run.step_ms[step]);
  }
  result.bubble = Median(std::move(bubbles));
  result.planned_bubble = post_validated ? plan.metrics.span_bubble : plan.metrics.makespan_bubble;
  result.overhead_share = -1;
  if (post_validated) return absl::OkStatus();  // ranks are in different steps at one time
  result.overhead_share = Median(std::move(overheads));
  result.traced_ms = Median(std::move(ends));
  ASSIGN_OR_RETURN(const Timeline simulated, Simulate(plan.training, benchmark->measured_costs));
  result.simulated_ms = Milliseconds(Measure(simulated).step_ns);
  return absl::OkStatus();
}

// One entry for each operation and shape, with its time in each step.
std::vector<BenchedOperation> OperationsOf(const StepRun& run, int threads_per_rank) {
  std::map<std::pair<std::string, ProductShape>, BenchedOperation> sums;
  const size_t steps = run.operations.size();
  for (size_t step = 0; step < steps; ++step) {
    for (const OperationTime& time : run.operations[step]) {
      BenchedOperation& sum = sums[{time.operation, ShapeOf(time)}];
      sum.operation = time.operation;
      sum.shape = ShapeOf(time);
      sum.ms.resize(steps);
      sum.ms[step] += Milliseconds(time.time) * threads_per_rank;
      if (step > 0) continue;  // all steps do the same
      sum.calls += time.calls;
      sum.flops += time.flops;
      sum.read_bytes += time.read_bytes;
      sum.written_bytes += time.written_bytes;
    }
  }
  std::vector<BenchedOperation> operations;
  for (auto& [key, sum] : sums) operations.push_back(std::move(sum));
  return operations;
}

void AddFloors(const MachineRates& rates, BenchResult* result) {
  result->memory = rates.memory;
  for (BenchedOperation& operation : result->operations) {
    const ProductShape& shape = operation.shape;
    const OperationTime time{.operation = operation.operation,
                             .products = shape.products,
                             .m = shape.m,
                             .n = shape.n,
                             .k = shape.k,
                             .compute = shape.compute,
                             .flops = operation.flops,
                             .read_bytes = operation.read_bytes,
                             .written_bytes = operation.written_bytes};
    operation.floor = FloorOf(time, rates);
    if (const auto found = rates.products.find(shape); found != rates.products.end()) operation.rates = found->second;
  }
}

}  // namespace

BenchResult EmptyResult(World* world, const Plan& plan) {
  const JobConfig& job = plan.job;
  const LayerProfile facts = EmptyProfileOf(job);
  BenchResult result{.program = kProgram, .processor = ProcessorOf(world, job)};
  // More of them than processors take turns, which makes no machine faster.
  result.threads = std::min<int>(job.layout.pp * ThreadsPerRank(job),
                                 static_cast<int>(std::max<size_t>(1, Processors().size())));
  result.tokens = static_cast<double>(job.training.batch * job.training.sequence);
  for (int rank = 0; rank < job.layout.pp; ++rank) result.planned_bytes += plan.report.ranks[rank].allocated_bytes;
  result.job = {{"model", facts.model},
                {"layer graph", absl::StrCat(absl::Hex(facts.graph_hash))},
                {"precision", facts.precision},
                {"schedule", job.schedule.title()},
                {"ranks", absl::StrCat(job.layout.pp)},
                {"stages", absl::StrCat(plan.training.placement.stages())},
                {"threads a rank", absl::StrCat(facts.threads_per_rank)},
                {"micro-batches", absl::StrCat(job.training.micro_batches)},
                {"rows of a micro-batch", absl::StrCat(facts.rows)},
                {"sequence", absl::StrCat(facts.sequence)},
                {"recomputation", facts.recompute},
                {"gradient groups", absl::StrCat(job.training.gradient_groups)},
                {"post-validation", job.schedule.post_validation ? "yes" : "no"}};
  return result;
}

absl::StatusOr<Benchmark> RunBenchmark(World* world, const Plan& plan, const Dataset& dataset,
                                       const BenchOptions& options) {
  Benchmark benchmark{.result = EmptyResult(world, plan)};
  BenchResult& result = benchmark.result;
  result.base_bytes = MemoryOfProcess().bytes;
  ASSIGN_OR_RETURN(StepRun plain,
                   RunSteps(world, plan, dataset, {.steps = options.steps, .processors = ProcessorsFor(plan)}));
  result.peak_bytes = MemoryOfProcess().peak_bytes;
  if (const double age = AgeOfProcess(); age > 0) {
    result.first_step_seconds = age - static_cast<double>(world->Now() - plain.first_step_ended) / kSecond;
  }
  RETURN_IF_ERROR(AddTimelines(plan, plain, &benchmark));
  result.step_ms = std::move(plain.step_ms);
  ASSIGN_OR_RETURN(benchmark.profiled,
                   RunSteps(world, plan, dataset,
                            {.steps = options.steps, .profiling = Profiling::kOn, .processors = ProcessorsFor(plan)}));
  result.profiled_step_ms = Median(benchmark.profiled.step_ms);
  result.operations = OperationsOf(benchmark.profiled, ThreadsPerRank(plan.job));
  if (options.floors == Floors::kLeftOut) return benchmark;
  ASSIGN_OR_RETURN(benchmark.rates,
                   MeasureRates(world, benchmark.profiled.operations.front(), result.planned_bytes, result.threads));
  AddFloors(benchmark.rates, &result);
  return benchmark;
}

}  // namespace sluice::tools
