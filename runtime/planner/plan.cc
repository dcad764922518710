#include "runtime/planner/plan.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/cpu/operations.h"
#include "kernels/cuda/packed_linear.h"
#include "runtime/config/layer_profile.h"
#include "runtime/config/schedule.h"
#include "runtime/planner/generation_plan.h"
#include "runtime/planner/hosts.h"
#include "runtime/planner/stage_sizes.h"
#include "scheduler/lowering.h"
#include "stages/parameters.h"
#include "stages/rank_model.h"

namespace sluice {
namespace {

DeviceDescription DeviceOf(const JobConfig& job, const PlanOptions& options) {
  if (options.device.has_value()) return *options.device;
  DeviceDescription device;
  const int threads = std::max(1, job.layout.threads_per_rank);
  device.name = absl::StrCat(threads, " x ", device.name);
  device.flops_f32 *= threads;
  device.flops_bf16 *= threads;
  device.bytes_per_second *= threads;
  return device;
}

// Fills a plan step by step; each function is one step and relies on those before it.
class Planner {
 public:
  Planner(const JobConfig& job, const PlanOptions& options)
      : packed_bytes_(options.packed_bytes), device_(DeviceOf(job, options)), measured_(options.measured) {
    plan_.job = job;
    const RankGrid grid = job.layout.grid();
    within_host_ = device_.peer;
    messages_ = LinkAlong(GridAxis::kPipeline, grid, device_);
    reductions_ = LinkAlong(GridAxis::kData, grid, device_);
    plan_.scenario.network = NetworkOf(grid, device_);
    if (plan_.job.layout.device == DeviceKind::kCuda) plan_.scenario.issue = Issue::kAhead;
    // From here on the device is one shard's, and the others of its group are its peers.
    device_.peer = LinkAlong(GridAxis::kTensor, grid, device_);
    if (!packed_bytes_ && job.layout.device == DeviceKind::kCuda) packed_bytes_ = cuda::PackedLinearBytes;
    if (!packed_bytes_) {
      packed_bytes_ = [operations = std::shared_ptr<Operations>(cpu::NewOperations())](const LinearShape& shape) {
        return operations->PackedLinearBytes(shape);
      };
    }
  }

  absl::StatusOr<Plan> Run() {
    ASSIGN_OR_RETURN(schedule_, ScheduleOf(job()));
    RETURN_IF_ERROR(UseProfile());
    SetLayerTimes();
    if (absl::Status status = SettleWithinMemory(); absl::IsResourceExhausted(status)) {
      return absl::Status(status.code(), absl::StrCat(job().layout.memory_limit_place, status.message()));
    } else {
      RETURN_IF_ERROR(status);
    }
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
  int stages() const { return schedule_.placement.stages(); }

  // Where the job leaves open the cap of a generator that has one, it is the largest that the memory has room for.
  absl::Status SettleWithinMemory() {
    absl::Status status = Settle();
    ScheduleConfig& schedule = plan_.job.schedule;
    if ((schedule.name != "zb_auto" && schedule.name != "zb_v") || schedule.from_file != nullptr ||
        schedule.in_flight_cap > 0)
      return status;
    for (int cap = job().layout.pp - 1; cap >= 1 && absl::IsResourceExhausted(status); --cap) {
      schedule.in_flight_cap = cap;
      ASSIGN_OR_RETURN(schedule_, ScheduleOf(job()));
      status = Settle();
    }
    return status;
  }

  // Cuts, costs and what the schedule holds in flight depend on one another where a generator follows costs: from the
  // schedule without costs, in turn, until the schedule doesn't change any more.
  absl::Status Settle() {
    constexpr int kRounds = 4;
    for (int round = 0; round < kRounds; ++round) {
      RETURN_IF_ERROR(MakePrograms({}));  // without ties, which need cuts: for the slots
      RETURN_IF_ERROR(Cut(job().layout.layers_per_stage));
      ASSIGN_OR_RETURN(Schedule next, ScheduleOf(job(), CostsForGenerators()));
      if (next == schedule_) return absl::OkStatus();
      schedule_ = std::move(next);
    }
    // The last cuts stay if the schedule made for them has room.
    RETURN_IF_ERROR(MakePrograms({}));
    std::vector<int64_t> layers;
    for (int stage = 0; stage < stages(); ++stage) {
      layers.push_back(static_cast<int64_t>(RangeOf(stage).end - RangeOf(stage).begin));
    }
    return Annotate(Cut(layers), absl::StrCat("cuts and schedule had not settled after ", kRounds, " rounds"));
  }

  std::vector<PassCosts> CostsForGenerators() const {
    std::vector<PassCosts> costs;
    for (int stage = 0; stage < stages(); ++stage) {
      const NodeRange range = RangeOf(stage);
      PassCosts cost{.forward_ns = 0, .input_gradient_ns = 0, .weight_gradient_ns = 0};
      for (size_t node = range.begin; node < range.end; ++node) {
        cost.forward_ns += times_[stage][node].forward_ns;
        cost.input_gradient_ns += times_[stage][node].input_gradient_ns;
        cost.weight_gradient_ns += times_[stage][node].weight_gradient_ns;
      }
      cost.transfer_ns = messages_.latency_ns;
      if (messages_.bytes_per_second > 0) {
        cost.transfer_ns += static_cast<int64_t>(1e9 * static_cast<double>(memory_[stage].output_message) /
                                                 messages_.bytes_per_second);
      }
      // A stash slot is held as a whole until W.
      cost.forward_bytes = cost.weight_bytes = memory_[stage].stash_slot + memory_[stage].input_message;
      costs.push_back(cost);
    }
    return costs;
  }

  absl::Status MakePrograms(const std::vector<TiedUses>& tied) {
    LoweringOptions lowering{
        .queues = job().schedule.queues,
        .replicas = job().layout.dp,
        .send_slots = job().schedule.send_slots,
        .receive_ahead = job().schedule.receive_ahead,
        .zero1 = job().layout.zero1,
        .norm_check = job().schedule.post_validation ? NormCheck::kPostValidation : NormCheck::kBarrier};
    for (const TiedUses& uses : tied) lowering.tied_tensors.push_back({uses.tensor, uses.stages});
    in_flight_ = InFlight(schedule_);
    absl::StatusOr<Program> training = Lower(schedule_, lowering);
    if (!training.ok() && job().schedule.post_validation) {
      return Annotate(training.status(), absl::StrCat(job().file, ": schedule.post_validation"));
    }
    ASSIGN_OR_RETURN(plan_.training, std::move(training));
    ASSIGN_OR_RETURN(plan_.evaluation, ForwardOnly(schedule_.micro_batches, lowering));
    ASSIGN_OR_RETURN(plan_.generation, ForwardOnly(1, lowering));
    plan_.evaluation.name = "evaluation";
    plan_.generation.name = "generation";
    ShareSlots();
    if (job().schedule.post_validation) plan_.post_validation = DerivePostValidation(plan_.training);
    return absl::OkStatus();
  }

  // Evaluation runs where training runs: groups of p micro-batches of each copy through each of the rank's stages in
  // turn, whatever the placement.
  absl::StatusOr<Program> ForwardOnly(int micro_batches, const LoweringOptions& lowering) const {
    const Placement& placement = plan_.training.placement;
    Schedule schedule{.pass = PassKind::kForwardOnly, .micro_batches = micro_batches, .placement = placement};
    schedule.ranks.resize(placement.ranks());
    const int share = (micro_batches + placement.copies() - 1) / placement.copies();
    for (int first = 0; first < share; first += placement.ranks()) {
      for (int stage = 0; stage < placement.stages(); ++stage) {
        for (int copy = 0; copy < placement.copies(); ++copy) {
          auto& actions = schedule.ranks[placement.RankOf(StageId(stage), copy).index()];
          for (int k = first; k < std::min(share, first + placement.ranks()); ++k) {
            const MicroBatch i(copy * share + k);
            if (i.value() < micro_batches) actions.push_back(Forward(StageId(stage), i, copy));
          }
        }
      }
    }
    return Lower(schedule, lowering);
  }

  // One set of slots serves all three programs, and all copies of a stage have as many.
  void ShareSlots() {
    std::vector<PoolSizes> most(plan_.training.pools.size());
    const size_t stages_here = stages();
    for (const Program* program : {&plan_.training, &plan_.evaluation, &plan_.generation}) {
      for (size_t i = 0; i < most.size(); ++i) {
        for (size_t other = i % stages_here; other < most.size(); other += stages_here) {
          for (size_t pool = 0; pool < most[i].size(); ++pool) {
            most[i][pool] = std::max(most[i][pool], program->pools[other][pool]);
          }
        }
      }
    }
    for (Program* program : {&plan_.training, &plan_.evaluation, &plan_.generation}) program->pools = most;
  }

  // The costs that the job's profile measured.
  absl::Status UseProfile() {
    if (job().layout.measured == nullptr || !measured_.empty()) return absl::OkStatus();
    const LayerProfile& profile = *job().layout.measured;
    if (absl::Status status = CheckFits(profile, job()); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat(job().layout.profile_place, status.message()));
    }
    for (const ProfiledLayer& layer : profile.layers) measured_.push_back(layer.times);
    optimizer_ns_per_parameter_ = profile.optimizer_ns_per_parameter;
    if (profile.hand_over_ns > 0) messages_.latency_ns = device_.peer.latency_ns = profile.hand_over_ns;
    plan_.cost_source = absl::StrCat("measured on ", profile.processor);
    return absl::OkStatus();
  }

  int64_t OptimizerTime(int64_t parameters) const {
    if (optimizer_ns_per_parameter_ == 0) return sluice::OptimizerTime(parameters, device_);
    return std::llround(optimizer_ns_per_parameter_ * static_cast<double>(parameters));
  }

  void SetLayerTimes() {
    const LayerGraph& graph = job().graph;
    CHECK(measured_.empty() || measured_.size() == graph.nodes.size());
    for (int stage = 0; stage < stages(); ++stage) {
      std::vector<LayerTimes>& times = times_.emplace_back(measured_);
      if (!times.empty()) continue;
      for (const Node& node : graph.nodes) {
        times.push_back(AnalyticTimes(node, job().training.rows_per_micro_batch(), job().training.sequence,
                                      job().training.precision, job().training.recompute[stage], device_,
                                      TensorParallelOf(job())));
      }
    }
    if (!plan_.cost_source.empty()) return;
    plan_.cost_source =
        measured_.empty() ? absl::StrCat("estimated from FLOPs and bytes for ", device_.name) : "measured";
  }

  // Time of the messages over the border after a node. Handed-over memory is still cold for the core that reads it.
  int64_t BorderTime(const Node& node) const {
    const int64_t all = job().training.rows_per_micro_batch() * job().training.sequence;
    const int64_t tokens = TokensOf(all, TensorParallelOf(job())).count;
    const int64_t bytes = 2 * tokens * OutputBytesPerToken(node, job().training.precision);
    const double rate = messages_.bytes_per_second > 0 ? messages_.bytes_per_second : device_.bytes_per_second;
    return static_cast<int64_t>(1e9 * static_cast<double>(bytes) / rate);
  }

  // Into as many layers per stage as given; none: where the partitioner says.
  absl::Status Cut(const std::vector<int64_t>& layers_per_stage) {
    const LayerGraph& graph = job().graph;
    PartitionProblem problem;
    for (const std::vector<LayerTimes>& times : times_) {
      std::vector<int64_t>& row = problem.layer_ns.emplace_back();
      for (const LayerTimes& time : times) row.push_back(time.total_ns());
    }
    for (size_t node = 0; node + 1 < graph.nodes.size(); ++node)
      problem.cut_ns.push_back(BorderTime(graph.nodes[node]));
    problem.stages_of_rank.resize(job().layout.pp);
    const Placement& placement = plan_.training.placement;
    for (int copy = 0; copy < placement.copies(); ++copy) {
      for (int stage = 0; stage < stages(); ++stage) {
        problem.stages_of_rank[placement.RankOf(StageId(stage), copy).index()].push_back(stage);
      }
    }
    StageSizes sizes(job(), plan_.training, packed_bytes_);
    problem.bytes = [&sizes](int stage, int begin, int end) {
      return sizes.Bytes(stage, {static_cast<size_t>(begin), static_cast<size_t>(end)});
    };
    problem.bytes_dip = sizes.BytesDip();
    problem.caps = job().layout.memory_limit;
    if (layers_per_stage.empty()) {
      ASSIGN_OR_RETURN(plan_.partition, Partition(problem));
      plan_.cut_method = plan_.partition.exact ? "exact" : "local search";
    } else {
      std::vector<int> cuts = {0};
      for (const int64_t count : layers_per_stage) cuts.push_back(cuts.back() + static_cast<int>(count));
      ASSIGN_OR_RETURN(plan_.partition, Evaluate(problem, cuts));
      if (!job().layout.layers_per_stage.empty()) plan_.cut_method = "given in the job";
    }
    memory_.clear();
    overhead_.clear();
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
    for (int copy = 0; copy < plan_.training.placement.copies(); ++copy) {
      for (int i = 0; i < stages(); ++i) AddStage(i, copy);
    }
  }

  void AddStage(int i, int copy) {
    const Placement& placement = plan_.training.placement;
    const NodeRange range = RangeOf(i);
    StagePlan stage{.id = StageId(i),
                    .copy = copy,
                    .rank = placement.RankOf(StageId(i), copy),
                    .begin = range.begin,
                    .end = range.end,
                    .recompute = job().training.recompute[i],
                    .in_flight = in_flight_[placement.Index(StageId(i), copy)],
                    .memory = memory_[i]};
    stage.costs = {.forward_ns = 0, .input_gradient_ns = 0, .weight_gradient_ns = 0, .backward_ns = 0};
    std::set<std::string> names;  // a weight tied within the stage is there once
    for (size_t node = range.begin; node < range.end; ++node) {
      for (const ParameterSpec& spec : Parameters(job().graph, node, TensorParallelOf(job()))) {
        if (names.insert(spec.name).second) stage.parameters += spec.elements();
      }
      stage.costs.forward_ns += times_[i][node].forward_ns;
      stage.costs.input_gradient_ns += times_[i][node].input_gradient_ns;
      stage.costs.weight_gradient_ns += times_[i][node].weight_gradient_ns;
    }
    stage.costs.backward_ns = stage.costs.input_gradient_ns + stage.costs.weight_gradient_ns;
    const Traffic at_end = TensorStepTraffic(job().graph, range.begin, range.end, TensorParallelOf(job()));
    const int64_t members = job().layout.dp * placement.copies();
    stage.costs.optimizer_ns = OptimizerTime(job().layout.zero1 ? stage.parameters / members : stage.parameters) +
                               CollectiveTime(at_end, device_);
    stage.costs.activation_bytes = stage.memory.output_message;
    stage.costs.gradient_bytes = stage.memory.input_gradient_message;
    stage.costs.gather_bytes = 4 * stage.parameters;
    stage.costs.reduce_bytes = stage.costs.gather_bytes * job().training.gradient_groups / members;
    plan_.stages.push_back(std::move(stage));
  }

  void SetCosts() {
    for (const StagePlan& stage : plan_.stages) {
      if (stage.copy > 0) continue;
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
    const LinkDescription& alone = plan_.scenario.network.Competes() ? within_host_ : messages_;
    plan_.costs.transfer_latency_ns = alone.latency_ns;
    plan_.costs.transfer_bytes_per_second = alone.bytes_per_second;
    plan_.costs.collective_ns = reductions_.latency_ns;
    plan_.costs.collective_bytes_per_second = reductions_.bytes_per_second;
    const TensorParallel tensor = TensorParallelOf(job());
    plan_.costs.norm_bytes = 4 * NormPartials(job().graph, {0, job().graph.nodes.size()}, tensor);
    for (const TiedUses& tied : plan_.tied) {
      for (const ParameterSpec& spec : Parameters(job().graph, NodesWith(job().graph, tied.name).front(), tensor)) {
        if (spec.name != tied.name) continue;
        plan_.costs.tied_bytes.push_back(4 * job().training.gradient_groups * spec.elements());
      }
    }
    plan_.costs.stage_bytes = plan_.stage_bytes;
  }

  absl::Status Prove() {
    const VerifierOptions options{.stage_bytes = plan_.stage_bytes,
                                  .gradient_groups = static_cast<int>(job().training.gradient_groups) / job().layout.dp,
                                  .weight_gradient_order = job().schedule.from_file == nullptr
                                                               ? WeightGradientOrder::kRequired
                                                               : WeightGradientOrder::kReported};
    absl::StatusOr<VerifyReport> report = Verify(plan_.training, options);
    if (!report.ok()) return Annotate(report.status(), absl::StrCat("schedule ", job().schedule.title()));
    plan_.report = *std::move(report);
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
    ASSIGN_OR_RETURN(plan_.predicted, Simulate(plan_.training, plan_.costs, plan_.scenario));
    plan_.metrics = Measure(plan_.predicted);
    if (!plan_.post_validation.has_value()) return absl::OkStatus();
    // Where ranks run ahead of each other a step takes less than it lasts.
    const Program* const right = &plan_.training;
    const std::vector<const Program*> row = {&plan_.post_validation->first_step, right, right, right};
    ASSIGN_OR_RETURN(const std::vector<Timeline> steps, SimulateSteps(row, plan_.costs));
    plan_.metrics.step_ns = Measure(steps[3]).step_ns - Measure(steps[2]).step_ns;
    return absl::OkStatus();
  }

  std::function<int64_t(const LinearShape&)> packed_bytes_;
  DeviceDescription device_;              // of a rank: all its threads
  LinkDescription within_host_, messages_, reductions_;  // of any two, of the pipeline, of replicas
  std::vector<LayerTimes> measured_;  // per node; empty: none were
  double optimizer_ns_per_parameter_ = 0;  // 0: not measured
  Plan plan_;
  Schedule schedule_;
  std::vector<int> in_flight_;
  std::vector<std::vector<LayerTimes>> times_;  // [stage][node]
  std::vector<StageMemory> memory_;
  std::vector<int64_t> overhead_;
};

// "[4, 256, 384] f32", or a shard's slice of it: "[512 of 4 x 256, 384] f32".
std::string ShapeOf(const JobConfig& job, const Node& node) {
  const int64_t rows = job.training.rows_per_micro_batch(), sequence = job.training.sequence;
  const std::string tokens =
      job.layout.sequence_parallel
          ? absl::StrCat(TokensOf(rows * sequence, TensorParallelOf(job)).count, " of ", rows, " x ", sequence)
          : absl::StrCat(rows, ", ", sequence);
  return absl::StrCat("[", tokens, ", ", OutputWidth(node), "] ",
                      job.training.precision == Precision::kF32 ? "f32" : "bf16");
}

}  // namespace

absl::StatusOr<Plan> MakePlan(const JobConfig& job, const PlanOptions& options) { return Planner(job, options).Run(); }

StageOptions StageOptionsOf(const Plan& plan, const StagePlan& stage, int replica, int shard) {
  if (plan.generating) return GenerationOptionsOf(plan, shard);
  StageOptions options = OptionsFor(plan.job, plan.training, plan.training.pools[stage.id.index()], stage.recompute);
  options.copy = stage.copy;
  options.replica = replica;
  options.tensor_parallel.index = shard;
  return options;
}

Traffic ShardTraffic(const Plan& plan, const StagePlan& stage) {
  const TrainingConfig& training = plan.job.training;
  const TensorParallel tensor = TensorParallelOf(plan.job);
  Traffic once;
  for (size_t node = stage.begin; node < stage.end; ++node) {
    const LayerTraffic layer = TensorTraffic(plan.job.graph.nodes[node], training.rows_per_micro_batch(),
                                             training.sequence, training.precision, tensor);
    once += layer.forward + layer.input_gradient + layer.weight_gradient;
    if (stage.recompute == Recomputation::kSelective) once += layer.recompute_selective;
    if (stage.recompute == Recomputation::kFull) once += layer.recompute_full;
  }
  const int64_t times = plan.training.micro_batches / plan.training.placement.copies();
  const Traffic all{times * once.collectives, times * once.bytes};
  return all + TensorStepTraffic(plan.job.graph, stage.begin, stage.end, tensor);
}

std::vector<StageMessages> MessagesOf(const Plan& plan) {
  if (plan.generating) return GenerationMessagesOf(plan, plan.generating->prefill_tokens);
  std::vector<StageMessages> messages;
  for (const StagePlan& stage : plan.stages) {
    if (stage.copy > 0) continue;
    messages.push_back({.activation_bytes = stage.memory.output_message,
                        .gradient_bytes = stage.memory.input_gradient_message,
                        .activation = ShapeOf(plan.job, plan.job.graph.nodes[stage.end - 1])});
  }
  return messages;
}

std::vector<std::vector<StageMessages>> SmallerMessagesOf(const Plan& plan) {
  if (!plan.generating) return {};
  return {{}, {}, GenerationMessagesOf(plan, plan.generating->group_sequences)};
}

const std::vector<TiedUses>& TiedUsesOf(const Plan& plan) { return plan.tied; }

int64_t NormBytesOf(const Plan& plan) {
  const LayerGraph& graph = plan.job.graph;
  if (!plan.post_validation.has_value()) return 0;
  return 4 * NormPartials(graph, {0, graph.nodes.size()}, TensorParallelOf(plan.job));
}

}  // namespace sluice
