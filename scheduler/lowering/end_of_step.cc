// Pass 2. After a rank's last compute: the collectives of the tied tensors that it shares with other ranks, the norm,
// the optimizer step. All ranks list collectives in the same order, by number.

#include <algorithm>
#include <iterator>

#include "scheduler/lowering.h"

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

// Whether every rank that holds one of the stages holds all of them, be it in different copies: the gradients have been
// reduced over the copies, and nothing is left to exchange.
bool TogetherEverywhere(const std::vector<StageId>& stages, const Placement& placement) {
  const auto holds = [&](PipelineRank rank, StageId stage) {
    for (int copy = 0; copy < placement.copies(); ++copy) {
      if (placement.RankOf(stage, copy) == rank) return true;
    }
    return false;
  };
  for (int copy = 0; copy < placement.copies(); ++copy) {
    for (StageId one : stages) {
      for (StageId other : stages) {
        if (!holds(placement.RankOf(one, copy), other)) return false;
      }
    }
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

void AddEndOfStep(const std::vector<TiedTensor>& tied_tensors, Program& program) {
  if (program.pass == PassKind::kForwardOnly) return;
  for (const TiedTensor& tied : tied_tensors) {
    if (TogetherEverywhere(tied.stages, program.placement)) continue;
    for (int copy = 0; copy < program.placement.copies(); ++copy) {
      Collective collective{.kind = CollectiveKind::kTiedGradients, .tensor = tied.tensor, .copy = copy};
      collective.members = Holders(tied.stages, program.placement, copy);
      AddCollective(std::move(collective), program);
    }
  }
  Collective norm{.kind = CollectiveKind::kNorm};
  for (int r = 0; r < program.placement.ranks(); ++r) norm.members.emplace_back(r);
  AddCollective(std::move(norm), program);
  for (auto& actions : program.ranks) actions.push_back({.kind = ActionKind::kOptimizerStep});
}

}  // namespace sluice
