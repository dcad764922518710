// Pass 2. After a rank's last compute: the collectives of the tied tensors that it shares with other ranks, the norm,
// the optimizer step. All ranks list collectives in the same order, by number.

#include <algorithm>
#include <iterator>

#include "scheduler/lowering.h"

namespace sluice {
namespace {

// The ranks that hold one of the stages, in any copy; ascending, each once.
std::vector<PipelineRank> Holders(const std::vector<StageId>& stages, const Placement& placement) {
  std::vector<PipelineRank> ranks;
  for (int copy = 0; copy < placement.copies(); ++copy) {
    for (StageId stage : stages) ranks.push_back(placement.RankOf(stage, copy));
  }
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  return ranks;
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
    std::vector<PipelineRank> holders = Holders(tied.stages, program.placement);
    if (holders.size() < 2) continue;
    AddCollective({CollectiveKind::kTiedGradients, tied.tensor, std::move(holders)}, program);
  }
  Collective norm{.kind = CollectiveKind::kNorm};
  for (int r = 0; r < program.placement.ranks(); ++r) norm.members.emplace_back(r);
  AddCollective(std::move(norm), program);
  for (auto& actions : program.ranks) actions.push_back({.kind = ActionKind::kOptimizerStep});
}

}  // namespace sluice
