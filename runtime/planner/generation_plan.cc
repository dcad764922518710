#include "runtime/planner/generation_plan.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/cpu/operations.h"
#include "runtime/planner/stage_sizes.h"
#include "scheduler/generators.h"
#include "stages/parameters.h"
#include "stages/rank_model.h"

namespace sluice {
namespace {

// What decoding a token reads of the layer's weights.
int64_t WeightBytes(const LayerGraph& graph, size_t node, Precision precision) {
  if (graph.nodes[node].kind == LayerKind::kEmbedding) return 1;  // a row
  int64_t elements = 0;
  for (const ParameterSpec& spec : Parameters(graph, node)) elements += spec.elements();
  return elements * (precision == Precision::kF32 ? 4 : 2);
}

class Planner {
 public:
  explicit Planner(const GenerationSettings& settings) : settings_(settings), operations_(cpu::NewOperations()) {
    JobConfig& job = plan_.job;
    job.file = "generation";
    job.graph = settings.graph;
    job.layout = settings.layout;
    job.layout.dp = job.layout.chunks = 1;
    job.layout.sequence_parallel = false;
    if (job.layout.device == DeviceKind::kAuto) job.layout.device = DeviceKind::kCpu;
    job.training.precision = settings.precision;
    job.training.seed = settings.seed;
  }

  absl::StatusOr<Plan> Run() {
    RETURN_IF_ERROR(CheckSettings());
    RETURN_IF_ERROR(MakePrograms());
    RETURN_IF_ERROR(CutStages());
    SetStages();
    RETURN_IF_ERROR(Prove());
    Predict();
    return std::move(plan_);
  }

 private:
  int pp() const { return settings_.layout.pp; }
  GenerationPlan& generating() { return *plan_.generating; }

  absl::Status CheckSettings() const {
    const LayerGraph& graph = settings_.graph;
    RETURN_IF_ERROR(Validate(graph));
    if (settings_.layout.device == DeviceKind::kCuda) {
      return absl::UnimplementedError("generation runs on processors so far, not on GPUs: leave out --device cuda");
    }
    if (graph.nodes.back().kind != LayerKind::kHead || graph.nodes.front().kind != LayerKind::kEmbedding) {
      return absl::InvalidArgumentError(
          absl::StrCat("model ", graph.name, " doesn't go from tokens to tokens: it can't generate"));
    }
    if (settings_.groups < 1 || settings_.group_sequences < 1 || settings_.prefill_tokens < 1 || settings_.rounds < 1) {
      return absl::InvalidArgumentError("groups, sequences, tokens of a prefill and rounds must be at least 1");
    }
    if (settings_.context < 2 || settings_.context > graph.max_sequence) {
      return absl::InvalidArgumentError(absl::StrCat("a context of ", settings_.context, " tokens: model ", graph.name,
                                                     " has at most ", graph.max_sequence, ", and 2 are the least"));
    }
    return CheckTensorParallel(graph, TensorParallelOf(plan_.job));
  }

  absl::Status MakePrograms() {
    plan_.generating = GenerationPlan{.groups = settings_.groups,
                                      .group_sequences = settings_.group_sequences,
                                      .context = settings_.context,
                                      .prefill_tokens = std::max(settings_.prefill_tokens, settings_.group_sequences),
                                      .rounds = settings_.rounds};
    ASSIGN_OR_RETURN(generating().prefill, Prefill(pp()));
    ASSIGN_OR_RETURN(generating().prefill_one, Prefill(1));
    generating().prefill.name = "prefill";
    generating().prefill_one.name = "prefill of one";
    ASSIGN_OR_RETURN(const Schedule decode,
                     GenerateGeneration({.ranks = pp(), .groups = settings_.groups, .rounds = settings_.rounds}));
    ASSIGN_OR_RETURN(generating().decode, Lower(decode, {}));
    generating().decode.name = "decode";
    ShareSlots();
    return absl::OkStatus();
  }

  absl::StatusOr<Program> Prefill(int micro_batches) const {
    ASSIGN_OR_RETURN(const Schedule schedule, GenerateForwardOnly({.ranks = pp(), .micro_batches = micro_batches}));
    return Lower(schedule, {});
  }

  std::vector<Program*> Programs() { return {&generating().prefill, &generating().prefill_one, &generating().decode}; }

  void ShareSlots() {
    std::vector<PoolSizes> most(generating().decode.pools.size());
    for (const Program* program : Programs()) {
      for (size_t i = 0; i < most.size(); ++i) {
        for (size_t pool = 0; pool < most[i].size(); ++pool) {
          most[i][pool] = std::max(most[i][pool], program->pools[i][pool]);
        }
      }
    }
    for (Program* program : Programs()) program->pools = most;
  }

  StageMemory MemoryOf(int begin, int end) const {
    return PlanStageMemory(
        settings_.graph, {static_cast<size_t>(begin), static_cast<size_t>(end)}, GenerationOptionsOf(plan_),
        [&](const LinearShape& shape) { return operations_->PackedLinearBytes(shape); },
        [&](const CacheShape& shape) { return operations_->KeyValueCacheBytes(shape); });
  }

  // Of all slots of a stage, and what is fixed.
  int64_t BytesOf(int stage, const StageMemory& memory) const {
    const PoolSizes& pools = plan_.generating->decode.pools[stage];
    const auto slots = [&](Pool pool) { return pools[static_cast<size_t>(pool)]; };
    return memory.ArenaBytes(slots(Pool::kStash), 0) + slots(Pool::kInput) * memory.input_message +
           slots(Pool::kOutput) * memory.output_message + RankModel::Bytes(0, 0);
  }

  absl::Status CutStages() {
    const auto layers = static_cast<int>(settings_.graph.nodes.size());
    PartitionProblem problem{
        .layer_ns = {{}},
        .bytes = [this](int stage, int begin, int end) { return BytesOf(stage, MemoryOf(begin, end)); },
        .caps = settings_.layout.memory_limit};
    for (int i = 0; i < layers; ++i) {
      problem.layer_ns[0].push_back(WeightBytes(settings_.graph, i, settings_.precision));
    }
    for (int rank = 0; rank < pp(); ++rank) problem.stages_of_rank.push_back({rank});
    const std::vector<int64_t>& given = settings_.layout.layers_per_stage;
    if (given.empty()) {
      ASSIGN_OR_RETURN(plan_.partition, Partition(problem));
      plan_.cut_method = "by bytes of weights";
      return absl::OkStatus();
    }
    std::vector<int> cuts = {0};
    for (const int64_t count : given) cuts.push_back(cuts.back() + static_cast<int>(count));
    if (static_cast<int>(given.size()) != pp() || cuts.back() != layers) {
      return absl::InvalidArgumentError(
          absl::StrCat("the layers per stage don't make ", pp(), " stages of ", layers, " layers"));
    }
    ASSIGN_OR_RETURN(plan_.partition, Evaluate(problem, cuts));
    plan_.cut_method = "given";
    return absl::OkStatus();
  }

  void SetStages() {
    const std::vector<int>& cuts = plan_.partition.cuts;
    for (int i = 0; i < pp(); ++i) {
      const StageMemory memory = MemoryOf(cuts[i], cuts[i + 1]);
      StagePlan stage{.id = StageId(i),
                      .rank = plan_.placement().RankOf(StageId(i)),
                      .begin = static_cast<size_t>(cuts[i]),
                      .end = static_cast<size_t>(cuts[i + 1]),
                      .in_flight = 1,
                      .memory = memory};
      for (const StageParameter& parameter :
           StageParameters(settings_.graph, stage.begin, stage.end, TensorParallelOf(plan_.job))) {
        stage.parameters += parameter.spec.elements();
      }
      StageBytes& bytes = plan_.stage_bytes.emplace_back();
      bytes.slot[static_cast<size_t>(Pool::kInput)] = memory.input_message;
      bytes.slot[static_cast<size_t>(Pool::kOutput)] = memory.output_message;
      bytes.slot[static_cast<size_t>(Pool::kStash)] = memory.stash_slot;
      bytes.fixed = memory.ArenaBytes(0, 0) + RankModel::Bytes(0, 0);
      plan_.stages.push_back(std::move(stage));
    }
  }

  absl::Status Prove() {
    const VerifierOptions options{.stage_bytes = plan_.stage_bytes};
    for (const Program* program : Programs()) {
      ASSIGN_OR_RETURN(plan_.report, Verify(*program, options));
    }
    for (int rank = 0; rank < pp(); ++rank) {  // what the partitioner counted is what was proven
      CHECK_EQ(plan_.report.ranks[rank].allocated_bytes, plan_.partition.bytes[rank]) << "on rank " << rank;
    }
    return absl::OkStatus();
  }

  // Roughly, and for the watchdog alone: a micro-batch of prompts through all layers.
  void Predict() {
    DeviceDescription core;
    const double flops = 2.0 * static_cast<double>(ParameterCount(settings_.graph) * generating().prefill_tokens);
    const int threads = std::max(1, settings_.layout.threads_per_rank);
    plan_.metrics.step_ns = static_cast<int64_t>(1e9 * flops / (core.flops_f32 * threads));
  }

  const GenerationSettings& settings_;
  const std::unique_ptr<Operations> operations_;
  Plan plan_;
};

}  // namespace

absl::StatusOr<Plan> MakeGenerationPlan(const GenerationSettings& settings) { return Planner(settings).Run(); }

StageOptions GenerationOptionsOf(const Plan& plan, int shard) {
  const GenerationPlan& generating = *plan.generating;
  StageOptions options{.precision = plan.job.training.precision,
                       .purpose = StagePurpose::kInference,
                       .rows = generating.prefill_tokens,
                       .sequence = 1,
                       .micro_batches = std::max(generating.decode.micro_batches, generating.prefill.micro_batches),
                       .tensor_parallel = TensorParallelOf(plan.job),
                       .groups = generating.groups,
                       .group_sequences = generating.group_sequences,
                       .context = generating.context,
                       .seed = plan.job.training.seed};
  options.tensor_parallel.index = shard;
  return options;
}

std::vector<StageMessages> GenerationMessagesOf(const Plan& plan, int64_t tokens) {
  std::vector<StageMessages> messages;
  const char* const type = plan.job.training.precision == Precision::kF32 ? "f32" : "bf16";
  for (const StagePlan& stage : plan.stages) {
    const Node& last = plan.job.graph.nodes[stage.end - 1];
    if (OutputWidth(last) == 0) {
      const int64_t sequences = plan.generating->group_sequences;
      messages.push_back({.activation_bytes = 4 * sequences, .activation = absl::StrCat("[", sequences, "] i32")});
      continue;
    }
    messages.push_back({.activation_bytes = tokens * OutputBytesPerToken(last, plan.job.training.precision),
                        .activation = absl::StrCat("[", tokens, ", ", OutputWidth(last), "] ", type)});
  }
  return messages;
}

}  // namespace sluice
