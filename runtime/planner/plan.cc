#include "runtime/planner/plan.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/cpu/operations.h"
#include "runtime/planner/stage_sizes.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "stages/parameters.h"
#include "stages/rank_model.h"

namespace sluice {
namespace {

constexpr int64_t kCollectiveNs = 20'000;  // a hand-over and a wake-up per member; only the simulation leans on it

// Fills a plan step by step; each function is one step and relies on those before it.
class Planner {
 public:
  Planner(const JobConfig& job, const PlanOptions& options)
      : options_(options), packed_bytes_(options.packed_bytes), device_(options.device) {
    plan_.job = job;
    const double threads = std::max(1, job.layout.threads_per_rank);
    device_.flops_f32 *= threads;
    device_.flops_bf16 *= threads;
    device_.bytes_per_second *= threads;
    if (!packed_bytes_) {
      packed_bytes_ = [operations = std::shared_ptr<Operations>(cpu::NewOperations())](const LinearShape& shape) {
        return operations->PackedLinearBytes(shape);
      };
    }
  }

  absl::StatusOr<Plan> Run() {
    RETURN_IF_ERROR(MakePrograms({}));  // without ties, which need cuts: for the slots
    SetLayerTimes();
    RETURN_IF_ERROR(Cut());
    SetTied();
    RETURN_IF_ERROR(MakePrograms(plan_.tied));
    SetStages();
    SetCosts();
    RETURN_IF_ERROR(Prove());
    RETURN_IF_ERROR(Predict());
    return std::move(plan_);
  }

 private:
  const JobConfig& job() const { return plan_.job; }
  int stages() const { return plan_.training.placement.stages(); }

  absl::Status MakePrograms(const std::vector<TiedUses>& tied) {
    const GeneratorParams params{.ranks = job().layout.pp,
                                 .chunks = job().layout.chunks,
                                 .micro_batches = static_cast<int>(job().training.micro_batches)};
    LoweringOptions lowering{
        .queues = job().schedule.queues,
        .send_slots = job().schedule.send_slots,
        .receive_ahead = job().schedule.receive_ahead,
        .norm_check = job().schedule.post_validation ? NormCheck::kPostValidation : NormCheck::kBarrier};
    for (const TiedUses& uses : tied) lowering.tied_tensors.push_back({uses.tensor, uses.stages});
    ASSIGN_OR_RETURN(const Schedule schedule, Generate(job().schedule.name, params));
    in_flight_ = InFlight(schedule);
    absl::StatusOr<Program> training = Lower(schedule, lowering);
    if (!training.ok() && job().schedule.post_validation) {
      return Annotate(training.status(), absl::StrCat(job().file, ": schedule.post_validation"));
    }
    ASSIGN_OR_RETURN(plan_.training, std::move(training));
    ASSIGN_OR_RETURN(plan_.evaluation, ForwardOnly(params, lowering));
    GeneratorParams one = params;
    one.micro_batches = 1;
    ASSIGN_OR_RETURN(plan_.generation, ForwardOnly(one, lowering));
    plan_.evaluation.name = "evaluation";
    plan_.generation.name = "generation";
    ShareSlots();
    if (job().schedule.post_validation) plan_.post_validation = DerivePostValidation(plan_.training);
    return absl::OkStatus();
  }

  // Evaluation runs where training runs: the generator's own order, or, on a placement that it doesn't know, groups of
  // p micro-batches through each of the rank's stages in turn.
  absl::StatusOr<Program> ForwardOnly(const GeneratorParams& params, const LoweringOptions& lowering) const {
    const Placement& placement = plan_.training.placement;
    ASSIGN_OR_RETURN(Schedule schedule, GenerateForwardOnly(params));
    if (schedule.placement == placement) return Lower(schedule, lowering);
    schedule.placement = placement;
    for (auto& actions : schedule.ranks) actions.clear();
    for (int first = 0; first < params.micro_batches; first += params.ranks) {
      const int last = std::min(params.micro_batches, first + params.ranks);
      for (int stage = 0; stage < placement.stages(); ++stage) {
        auto& actions = schedule.ranks[placement.RankOf(StageId(stage)).index()];
        for (int i = first; i < last; ++i) actions.push_back(Forward(StageId(stage), MicroBatch(i)));
      }
    }
    return Lower(schedule, lowering);
  }

  // One set of slots serves all three programs.
  void ShareSlots() {
    std::vector<PoolSizes> most = plan_.training.pools;
    for (const Program* program : {&plan_.evaluation, &plan_.generation}) {
      for (size_t i = 0; i < most.size(); ++i) {
        for (size_t pool = 0; pool < most[i].size(); ++pool) {
          most[i][pool] = std::max(most[i][pool], program->pools[i][pool]);
        }
      }
    }
    for (Program* program : {&plan_.training, &plan_.evaluation, &plan_.generation}) program->pools = most;
  }

  void SetLayerTimes() {
    const LayerGraph& graph = job().graph;
    CHECK(options_.measured.empty() || options_.measured.size() == graph.nodes.size());
    for (int stage = 0; stage < stages(); ++stage) {
      std::vector<LayerTimes>& times = times_.emplace_back(options_.measured);
      if (!times.empty()) continue;
      for (const Node& node : graph.nodes) {
        times.push_back(AnalyticTimes(node, job().training.rows_per_micro_batch(), job().training.sequence,
                                      job().training.precision, job().training.recompute[stage], device_));
      }
    }
    plan_.cost_source = options_.measured.empty()
                            ? absl::StrCat("estimated from FLOPs and bytes for ",
                                           std::max(1, job().layout.threads_per_rank), " x ", device_.name)
                            : "measured";
  }

  // Time of the messages over the border after a node. Handed-over memory is still cold for the core that reads it.
  int64_t BorderTime(const Node& node) const {
    const int64_t tokens = job().training.rows_per_micro_batch() * job().training.sequence;
    const int64_t bytes = tokens * (OutputBytesPerToken(node, job().training.precision) +
                                    OutputGradientBytesPerToken(node, job().training.precision));
    const double rate = device_.link_bytes_per_second > 0 ? device_.link_bytes_per_second : device_.bytes_per_second;
    return static_cast<int64_t>(1e9 * static_cast<double>(bytes) / rate);
  }

  absl::Status Cut() {
    const LayerGraph& graph = job().graph;
    PartitionProblem problem;
    for (const std::vector<LayerTimes>& times : times_) {
      std::vector<int64_t>& row = problem.layer_ns.emplace_back();
      for (const LayerTimes& time : times) row.push_back(time.total_ns());
    }
    for (size_t node = 0; node + 1 < graph.nodes.size(); ++node)
      problem.cut_ns.push_back(BorderTime(graph.nodes[node]));
    problem.stages_of_rank.resize(job().layout.pp);
    for (int stage = 0; stage < stages(); ++stage) {
      problem.stages_of_rank[plan_.training.placement.RankOf(StageId(stage)).index()].push_back(stage);
    }
    StageSizes sizes(job(), plan_.training, packed_bytes_);
    problem.bytes = [&sizes](int stage, int begin, int end) {
      return sizes.Bytes(stage, {static_cast<size_t>(begin), static_cast<size_t>(end)});
    };
    problem.caps = job().layout.memory_limit;
    if (job().layout.layers_per_stage.empty()) {
      ASSIGN_OR_RETURN(plan_.partition, Partition(problem));
      plan_.cut_method = plan_.partition.exact ? "exact" : "local search";
    } else {
      std::vector<int> cuts = {0};
      for (const int64_t count : job().layout.layers_per_stage) cuts.push_back(cuts.back() + static_cast<int>(count));
      ASSIGN_OR_RETURN(plan_.partition, Evaluate(problem, cuts));
      plan_.cut_method = "given in the job";
    }
    for (int stage = 0; stage < stages(); ++stage) {
      const NodeRange range = RangeOf(stage);
      memory_.push_back(sizes.Memory(stage, range));
      overhead_.push_back(RankModel::Bytes(sizes.NormPartials(stage, range), 0) - RankModel::Bytes(0, 0) +
                          sizes.RankOverhead(stage));
    }
    return absl::OkStatus();
  }

  NodeRange RangeOf(int stage) const {
    return {static_cast<size_t>(plan_.partition.cuts[stage]), static_cast<size_t>(plan_.partition.cuts[stage + 1])};
  }

  StageId StageOf(size_t node) const {
    const auto after =
        std::upper_bound(plan_.partition.cuts.begin(), plan_.partition.cuts.end(), static_cast<int>(node));
    return StageId(after - plan_.partition.cuts.begin() - 1);
  }

  void SetTied() {
    for (const TiedWeight& weight : TiedWeights(job().graph)) {
      TiedUses uses{.tensor = static_cast<int>(plan_.tied.size()), .name = weight.name};
      for (const size_t node : weight.nodes) uses.stages.push_back(StageOf(node));
      plan_.tied.push_back(std::move(uses));
    }
  }

  void SetStages() {
    for (int i = 0; i < stages(); ++i) {
      const NodeRange range = RangeOf(i);
      StagePlan stage{.id = StageId(i),
                      .rank = plan_.training.placement.RankOf(StageId(i)),
                      .begin = range.begin,
                      .end = range.end,
                      .recompute = job().training.recompute[i],
                      .in_flight = in_flight_[i],
                      .memory = memory_[i]};
      stage.costs = {.forward_ns = 0, .input_gradient_ns = 0, .weight_gradient_ns = 0, .backward_ns = 0};
      std::set<std::string> names;  // a weight tied within the stage is there once
      for (size_t node = range.begin; node < range.end; ++node) {
        for (const ParameterSpec& spec : Parameters(job().graph, node)) {
          if (names.insert(spec.name).second) stage.parameters += spec.elements();
        }
        stage.costs.forward_ns += times_[i][node].forward_ns;
        stage.costs.input_gradient_ns += times_[i][node].input_gradient_ns;
        stage.costs.weight_gradient_ns += times_[i][node].weight_gradient_ns;
      }
      stage.costs.backward_ns = stage.costs.input_gradient_ns + stage.costs.weight_gradient_ns;
      stage.costs.optimizer_ns = OptimizerTime(stage.parameters, device_);
      stage.costs.activation_bytes = stage.memory.output_message;
      stage.costs.gradient_bytes = stage.memory.input_gradient_message;
      plan_.stages.push_back(std::move(stage));
    }
  }

  void SetCosts() {
    for (const StagePlan& stage : plan_.stages) {
      const StageMemory& memory = stage.memory;
      StageBytes& bytes = plan_.stage_bytes.emplace_back();
      const auto slot = [&bytes](Pool pool) -> int64_t& { return bytes.slot[static_cast<size_t>(pool)]; };
      slot(Pool::kInput) = memory.input_message;
      slot(Pool::kOutput) = memory.output_message;
      slot(Pool::kOutputGradient) = memory.output_gradient_message;
      slot(Pool::kInputGradient) = memory.input_gradient_message;
      slot(Pool::kStash) = memory.stash_slot;
      slot(Pool::kGradientStash) = memory.gradient_stash_slot;
      bytes.fixed = memory.ArenaBytes(0, 0) + overhead_[stage.id.index()];
      plan_.costs.stages.push_back(stage.costs);
    }
    plan_.costs.transfer_latency_ns = device_.link_latency_ns;
    plan_.costs.transfer_bytes_per_second = device_.link_bytes_per_second;
    plan_.costs.collective_ns = kCollectiveNs;
    plan_.costs.stage_bytes = plan_.stage_bytes;
  }

  absl::Status Prove() {
    const VerifierOptions options{.stage_bytes = plan_.stage_bytes,
                                  .gradient_groups = static_cast<int>(job().training.gradient_groups)};
    ASSIGN_OR_RETURN(plan_.report, Verify(plan_.training, options));
    RETURN_IF_ERROR(Verify(plan_.evaluation, options).status());
    RETURN_IF_ERROR(Verify(plan_.generation, options).status());
    if (plan_.post_validation.has_value()) {
      const PostValidationPrograms& others = *plan_.post_validation;
      for (const Program* program : {&others.first_step, &others.guess_wrong, &others.settle}) {
        RETURN_IF_ERROR(Verify(*program, options).status());
      }
      RETURN_IF_ERROR(VerifySwitch(plan_.training, others.guess_wrong));
    }
    for (int rank = 0; rank < job().layout.pp; ++rank) {  // what the partitioner counted is what was proven
      CHECK_EQ(plan_.report.ranks[rank].allocated_bytes, plan_.partition.bytes[rank]) << "on rank " << rank;
    }
    return absl::OkStatus();
  }

  absl::Status Predict() {
    ASSIGN_OR_RETURN(plan_.predicted, Simulate(plan_.training, plan_.costs));
    plan_.metrics = Measure(plan_.predicted);
    if (!plan_.post_validation.has_value()) return absl::OkStatus();
    // Where ranks run ahead of each other a step takes less than it lasts.
    const Program* const right = &plan_.training;
    const std::vector<const Program*> row = {&plan_.post_validation->first_step, right, right, right};
    ASSIGN_OR_RETURN(const std::vector<Timeline> steps, SimulateSteps(row, plan_.costs));
    plan_.metrics.step_ns = Measure(steps[3]).step_ns - Measure(steps[2]).step_ns;
    return absl::OkStatus();
  }

  const PlanOptions& options_;
  std::function<int64_t(const LinearShape&)> packed_bytes_;
  DeviceDescription device_;  // of a rank: all its threads
  Plan plan_;
  std::vector<int> in_flight_;
  std::vector<std::vector<LayerTimes>> times_;  // [stage][node]
  std::vector<StageMemory> memory_;
  std::vector<int64_t> overhead_;
};

// "[4, 256, 384] f32"
std::string ShapeOf(const JobConfig& job, const Node& node) {
  const int64_t width = OutputWidth(node);
  const bool f32 = job.training.precision == Precision::kF32 || node.kind == LayerKind::kHead;
  return absl::StrCat("[", job.training.rows_per_micro_batch(), ", ", job.training.sequence, ", ", width, "] ",
                      f32 ? "f32" : "bf16");
}

}  // namespace

absl::StatusOr<Plan> MakePlan(const JobConfig& job, const PlanOptions& options) { return Planner(job, options).Run(); }

StageOptions StageOptionsOf(const Plan& plan, const StagePlan& stage) {
  return OptionsFor(plan.job, plan.training, plan.training.pools[stage.id.index()], stage.recompute);
}

std::vector<StageMessages> MessagesOf(const Plan& plan) {
  std::vector<StageMessages> messages;
  for (const StagePlan& stage : plan.stages) {
    messages.push_back({.activation_bytes = stage.memory.output_message,
                        .gradient_bytes = stage.memory.input_gradient_message,
                        .activation = ShapeOf(plan.job, plan.job.graph.nodes[stage.end - 1])});
  }
  return messages;
}

const std::vector<TiedUses>& TiedUsesOf(const Plan& plan) { return plan.tied; }

int64_t NormBytesOf(const Plan& plan) {
  const LayerGraph& graph = plan.job.graph;
  return plan.post_validation.has_value() ? 4 * NormPartials(graph, {0, graph.nodes.size()}) : 0;
}

}  // namespace sluice
