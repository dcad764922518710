// Pass 2. After a rank's last compute: the collectives of the tied tensors that it shares with other ranks, the norm,
// the optimizer step, and what the holders of its stages gather. All ranks list collectives in the same order, by
// number.

#include <algorithm>
#include <iterator>

#include "scheduler/lowering.h"
#include "scheduler/lowering/of_stage.h"

namespace sluice {
namespace {

// The ranks that hold one of the stages in this copy; ascending, each once.
std::vector<PipelineRank> Holders(const std::vector<StageId>& stages, const Placement& placement, int copy) {
  std::vector<PipelineRank> ranks;
  for (StageId stage : stages) ranks.push_back(placement.RankOf(stage, copy));
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  return ranks;
}

// Whether in each copy one rank holds all of the stages, and nothing is left to exchange.
bool TogetherEverywhere(const std::vector<StageId>& stages, const Placement& placement) {
  for (int copy = 0; copy < placement.copies(); ++copy) {
    if (Holders(stages, placement, copy).size() > 1) return false;
  }
  return true;
}

void AddCollective(Collective collective, Program& program) {
  const auto number = static_cast<int32_t>(program.collectives.size());
  for (PipelineRank rank : collective.members) {
    program.ranks[rank.index()].push_back({.kind = ActionKind::kCollective, .collective = number});
  }
  program.collectives.push_back(std::move(collective));
}

}  // namespace

void AddEndOfStep(const LoweringOptions& options, Program& program) {
  if (program.pass == PassKind::kForwardOnly) return;
  const Placement& placement = program.placement;
  for (const TiedTensor& tied : options.tied_tensors) {
    if (TogetherEverywhere(tied.stages, placement)) continue;
    for (int copy = 0; copy < placement.copies(); ++copy) {
      Collective collective{.kind = CollectiveKind::kTiedGradients, .tensor = tied.tensor, .copy = copy};
      collective.members = Holders(tied.stages, placement, copy);
      AddCollective(std::move(collective), program);
    }
  }
  Collective norm{.kind = CollectiveKind::kNorm};
  for (int r = 0; r < placement.ranks(); ++r) norm.members.emplace_back(r);
  AddCollective(std::move(norm), program);
  const auto gather = [&](CollectiveKind kind) {
    for (int s = 0; s < placement.stages(); ++s) AddCollective(OfStage(kind, StageId(s), placement), program);
  };
  if (program.Reduces() && !options.zero1) gather(CollectiveKind::kSummedGradients);
  for (auto& actions : program.ranks) actions.push_back({.kind = ActionKind::kOptimizerStep});
  if (program.Reduces() && options.zero1) gather(CollectiveKind::kParameters);
}

}  // namespace sluice
