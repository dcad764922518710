#include "runtime/trainer/outcome.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "scheduler/memory_samples.h"
#include "stages/parameters.h"

namespace sluice {
namespace {

using OutcomeTable = std::vector<const RankOutcome*>;  // by world rank

OutcomeTable TableOf(const RankGrid& grid, const std::vector<RankOutcome>& ranks) {
  OutcomeTable table(grid.ranks());
  for (const RankOutcome& rank : ranks) table[rank.rank.index()] = &rank;
  for (int rank = 0; rank < grid.ranks(); ++rank) CHECK(table[rank] != nullptr) << "rank " << rank << " has no outcome";
  return table;
}

// Which message of a pipeline a transfer moves: the same for both of its ends.
using MessageKey = std::tuple<int, int, int, int>;
MessageKey MessageOf(const Span& span) {
  const Action& a = span.action;
  if (IsStageTransfer(a.kind)) {
    return {IsForwardTransfer(a.kind) ? 0 : 1, SourceStage(a).value(), a.micro_batch.value(), a.copy};
  }
  // Of post-validation: one of a kind between two neighbours.
  const bool norm = a.kind == ActionKind::kSendNorm || a.kind == ActionKind::kRecvNorm;
  return {norm ? 2 : 3, IsSend(a.kind) ? span.rank.value() : a.peer.value(), 0, 0};
}

// A send is seen to begin by its own process, which may look late; it has begun when its receiver has the first of it.
void LetSendsComeFirst(std::vector<Span>* spans) {
  std::map<MessageKey, int64_t> arrives;
  for (const Span& span : *spans) {
    if (IsRecv(span.action.kind)) arrives[MessageOf(span)] = span.begin_ns;
  }
  for (Span& span : *spans) {
    if (!IsSend(span.action.kind)) continue;
    const auto arrived = arrives.find(MessageOf(span));
    if (arrived != arrives.end()) span.begin_ns = std::min(span.begin_ns, arrived->second);
  }
}

// Adds what one pipeline of the grid did to the timeline of all.
void AddPipeline(const Plan& plan, const OutcomeTable& table, GridPlace place, Nanoseconds began, Timeline* timeline) {
  const RankGrid grid = plan.job.layout.grid();
  std::vector<Span> spans;
  for (int rank = 0; rank < grid.pp(); ++rank) {
    place.pipeline = PipelineRank(rank);
    for (Span span : table[grid.RankOf(place).index()]->spans) {
      span.begin_ns -= began;
      span.end_ns -= began;
      spans.push_back(span);
    }
  }
  LetSendsComeFirst(&spans);
  const auto row = [&](PipelineRank rank) {
    place.pipeline = rank;
    return PipelineRank(grid.RankOf(place).value());
  };
  for (MemorySample sample : MemorySamples(plan.training, plan.stage_bytes, spans)) {
    sample.rank = row(sample.rank);
    timeline->samples.push_back(sample);
  }
  for (Span& span : spans) {
    span.rank = row(span.rank);
    timeline->spans.push_back(span);
  }
}

}  // namespace

std::vector<float> LossSums(const Plan& plan, const std::vector<RankOutcome>& ranks) {
  const RankGrid grid = plan.job.layout.grid();
  const OutcomeTable table = TableOf(grid, ranks);
  const Placement& placement = plan.training.placement;
  const int micro_batches = plan.training.micro_batches;
  std::vector<float> sums;
  for (int replica = 0; replica < grid.dp(); ++replica) {
    for (int i = 0; i < micro_batches; ++i) {
      const int copy = CopyOf(MicroBatch(i), micro_batches, placement.copies());
      const PipelineRank last = placement.RankOf(StageId(placement.stages() - 1), copy);
      sums.push_back(table[grid.RankOf({last, replica, 0}).index()]->losses[i]);
    }
  }
  return sums;
}

absl::Status CompareReplicas(const RankGrid& grid, const std::vector<TensorHash>& hashes) {
  // By tensor and shard; stages that share a tied one must have the same too.
  std::map<std::pair<std::string, int>, const TensorHash*> first;
  for (const TensorHash& hash : hashes) {
    const auto [known, added] = first.try_emplace({hash.tensor, grid.PlaceOf(hash.rank).shard}, &hash);
    if (added || known->second->hash == hash.hash) continue;
    return absl::InternalError(absl::StrCat(
        grid.Describe(hash.rank), " holds other values of ", hash.tensor, " than ", grid.Describe(known->second->rank),
        " (hashes ", absl::Hex(hash.hash, absl::kZeroPad16), " and ", absl::Hex(known->second->hash, absl::kZeroPad16),
        "): a processor or memory of one of them may be faulty, or the machines are of different kinds"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> CompleteParameter(const Plan& plan, const std::string& name,
                                                     const ShardValues& shards) {
  const std::vector<size_t> nodes = NodesWith(plan.job.graph, name);
  if (nodes.empty() || shards.empty()) return absl::NotFoundError(absl::StrCat("no parameter is called ", name));
  std::vector<ParameterPart> parts;
  for (const auto& [shard, values] : shards) {
    TensorParallel split = StageOptionsOf(plan, plan.stages.front()).tensor_parallel;
    split.index = shard;
    for (ParameterSpec& spec : Parameters(plan.job.graph, nodes.front(), split)) {
      if (spec.name == name) parts.push_back({.spec = std::move(spec), .values = values});
    }
  }
  return Assemble(parts);
}

TrainingOutcome Assemble(const Plan& plan, const std::vector<RankOutcome>& ranks, Nanoseconds began) {
  const RankGrid grid = plan.job.layout.grid();
  const OutcomeTable table = TableOf(grid, ranks);
  TrainingOutcome outcome;
  outcome.loss_sums = LossSums(plan, ranks);
  // The last pipeline rank knows of all ranks' norms, whatever the end of a step.
  outcome.control = table[grid.RankOf({PipelineRank(grid.pp() - 1), 0, 0}).index()]->control;
  outcome.began = began;
  if (plan.post_validation.has_value()) {
    outcome.began = kForever;
    for (const RankOutcome& rank : ranks) {
      for (const Span& span : rank.spans) outcome.began = std::min(outcome.began, span.begin_ns);
    }
  }
  Timeline& timeline = outcome.timeline;
  timeline.name = plan.training.name;
  timeline.source = TimelineSource::kMeasured;
  timeline.ranks = grid.ranks();
  timeline.stages = plan.training.placement.stages();
  timeline.micro_batches = plan.training.micro_batches;
  timeline.queues = plan.training.queues;
  for (int replica = 0; replica < grid.dp(); ++replica) {
    for (int shard = 0; shard < grid.tp(); ++shard) {
      AddPipeline(plan, table, {PipelineRank(0), replica, shard}, outcome.began, &timeline);
    }
  }
  return outcome;
}

}  // namespace sluice
