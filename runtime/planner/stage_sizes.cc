#include "runtime/planner/stage_sizes.h"

#include <algorithm>

#include "runtime/executor/links.h"
#include "stages/rank_model.h"

namespace sluice {
namespace {

constexpr int64_t kAlignment = 64;  // StageMemory's pieces are rounded up to it

bool SplitsBackward(const Program& program) {
  for (const auto& actions : program.ranks) {
    for (const Action& action : actions) {
      if (action.kind == ActionKind::kInputGradient || action.kind == ActionKind::kWeightGradient) return true;
    }
  }
  return false;
}

int32_t Slots(const PoolSizes& pools, Pool pool) { return pools[static_cast<size_t>(pool)]; }

// Norm partials of the member that has most.
int64_t LargestShare(const std::vector<NormRun>& runs, int members) {
  std::vector<int64_t> shares(members);
  for (const NormRun& run : runs) shares[run.member] += run.count;
  return *std::max_element(shares.begin(), shares.end());
}

}  // namespace

TensorParallel TensorParallelOf(const JobConfig& job) {
  return {.size = job.layout.tp, .sequence_parallel = job.layout.sequence_parallel};
}

StageOptions OptionsFor(const JobConfig& job, const Program& training, const PoolSizes& pools,
                        Recomputation recompute) {
  return {.precision = job.training.precision,
          .recomputation = recompute,
          .purpose = StagePurpose::kTraining,
          .backward = SplitsBackward(training) ? BackwardForm::kSplit : BackwardForm::kWhole,
          .rows = job.training.rows_per_micro_batch(),
          .sequence = job.training.sequence,
          .micro_batches = job.micro_batches_per_replica(),
          .gradient_groups = static_cast<int>(job.training.gradient_groups),
          .copies = training.placement.copies(),
          .replicas = job.layout.dp,
          .zero1 = job.layout.zero1,
          .tensor_parallel = TensorParallelOf(job),
          .stash_slots = Slots(pools, Pool::kStash),
          .gradient_stash_slots = Slots(pools, Pool::kGradientStash),
          .keeps_state = job.schedule.post_validation,
          .seed = job.training.seed,
          .adam = {.beta1 = static_cast<float>(job.optimizer.beta1),
                   .beta2 = static_cast<float>(job.optimizer.beta2),
                   .epsilon = static_cast<float>(job.optimizer.epsilon),
                   .weight_decay = static_cast<float>(job.optimizer.weight_decay)}};
}

StageSizes::StageSizes(const JobConfig& job, const Program& training,
                       const std::function<int64_t(const LinearShape&)>& packed_bytes)
    : job_(job), training_(training), packed_bytes_(packed_bytes) {
  all_partials_ = sluice::NormPartials(job.graph, {0, job.graph.nodes.size()}, TensorParallelOf(job));
}

int64_t StageSizes::PackedBytes(const LinearShape& shape) {
  const auto [at, added] = packed_.try_emplace({shape.n, shape.k, shape.compute}, 0);
  if (added) at->second = packed_bytes_(shape);
  return at->second;
}

const StageSizes::Sizes& StageSizes::Of(int stage, NodeRange range) {
  const Recomputation recompute = job_.training.recompute[stage];
  const auto [at, added] = sizes_.try_emplace({recompute, range.begin, range.end});
  if (added) {
    // Slot counts change the number of slots, not the size of one: any stage's will do.
    const StageOptions options = OptionsFor(job_, training_, training_.pools[stage], recompute);
    at->second.memory =
        PlanStageMemory(job_.graph, range, options, [this](const LinearShape& s) { return PackedBytes(s); });
    at->second.norm_partials = LargestShare(NormRuns(job_.graph, range, options), options.members());
  }
  return at->second;
}

int64_t StageSizes::BytesDip() const {
  int64_t widest = 0, slots = 0, partials = 0;
  for (const Node& node : job_.graph.nodes) {
    widest = std::max(widest, OutputBytesPerToken(node, job_.training.precision));
  }
  for (const PoolSizes& pools : training_.pools) {
    slots = std::max<int64_t>(slots, Slots(pools, Pool::kInput) + Slots(pools, Pool::kOutput) +
                                         Slots(pools, Pool::kOutputGradient) + Slots(pools, Pool::kInputGradient));
  }
  for (const TiedWeight& weight : TiedWeights(job_.graph)) {
    for (const ParameterSpec& spec : Parameters(job_.graph, weight.nodes.front(), TensorParallelOf(job_))) {
      if (spec.name == weight.name) partials += 4 * job_.training.gradient_groups * spec.elements() + kAlignment;
    }
  }
  // Slices end with blocks, and all members have the room of the largest one.
  const int64_t members = job_.layout.dp * training_.placement.copies();
  if (members > 1) {
    const int64_t buckets = 4 * ParameterCount(job_.graph) / kBucketBytes + 2 + 2 * TiedWeights(job_.graph).size();
    partials += buckets * 4 * kNormBlock * (2 * job_.training.gradient_groups + 3);
  }
  return slots * job_.training.rows_per_micro_batch() * job_.training.sequence * widest + partials;
}

int64_t StageSizes::RankOverhead(int stage) const {
  const Placement& placement = training_.placement;
  for (int other = 0; other < stage; ++other) {
    for (int copy = 0; copy < placement.copies(); ++copy) {
      if (placement.RankOf(StageId(other), copy) == placement.RankOf(StageId(stage))) return 0;
    }
  }
  const int64_t travelling = job_.schedule.post_validation ? 4 * all_partials_ + kDecisionBytes : 0;
  return RankModel::Bytes(0, all_partials_) + travelling;
}

int64_t StageSizes::Bytes(int stage, NodeRange range) {
  const StageMemory& memory = Of(stage, range).memory;
  const PoolSizes& pools = training_.pools[stage];
  return memory.ArenaBytes(Slots(pools, Pool::kStash), Slots(pools, Pool::kGradientStash)) +
         Slots(pools, Pool::kInput) * memory.input_message + Slots(pools, Pool::kOutput) * memory.output_message +
         Slots(pools, Pool::kOutputGradient) * memory.output_gradient_message +
         Slots(pools, Pool::kInputGradient) * memory.input_gradient_message +
         RankModel::Bytes(NormPartials(stage, range), 0) - RankModel::Bytes(0, 0) + RankOverhead(stage);
}

}  // namespace sluice
