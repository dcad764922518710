#include "runtime/planner/grid_text.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/planner/text_table.h"
#include "scheduler/action_costs.h"

namespace sluice {
namespace {

// A row for each replica and shard, a column for each pipeline rank.
std::string Picture(const RankGrid& grid) {
  std::vector<std::string> heading = {""};
  for (int rank = 0; rank < grid.pp(); ++rank) heading.push_back(absl::StrCat("pipeline rank ", rank));
  TextTable table(heading);
  for (int replica = 0; replica < grid.dp(); ++replica) {
    for (int shard = 0; shard < grid.tp(); ++shard) {
      std::vector<std::string> row = {absl::StrCat(grid.dp() > 1 ? absl::StrCat("replica ", replica) : "",
                                                   grid.dp() > 1 && grid.tp() > 1 ? ", " : "",
                                                   grid.tp() > 1 ? absl::StrCat("shard ", shard) : "")};
      for (int rank = 0; rank < grid.pp(); ++rank) {
        row.push_back(absl::StrCat(grid.RankOf({PipelineRank(rank), replica, shard}).value()));
      }
      table.Add(std::move(row));
    }
  }
  return table.ToString({0});
}

// Bytes that a rank takes in within a step, by kind.
struct TakenIn {
  int64_t activations = 0, gradients = 0;           // messages of the pipeline
  int64_t reduced = 0, parameters = 0, shards = 0;  // across holders of a stage; from the shards
};

TakenIn TakenInBy(const Plan& plan, PipelineRank rank) {
  const ActionCosts costs(plan.costs);
  TakenIn sum;
  for (const Action& action : plan.training.ranks[rank.index()]) {
    if (action.kind == ActionKind::kRecvForward) sum.activations += costs.Bytes(action);
    if (action.kind == ActionKind::kRecvBackward) sum.gradients += costs.Bytes(action);
    if (!IsCollective(action)) continue;
    const Collective& collective = plan.training.collectives[action.collective];
    const int64_t bytes = CollectiveBytes(plan.training, collective, plan.costs);
    (collective.kind == CollectiveKind::kParameters ? sum.parameters : sum.reduced) += bytes;
  }
  for (const StagePlan& stage : plan.stages) {
    if (stage.rank == rank && plan.job.layout.tp > 1) sum.shards += ShardTraffic(plan, stage).bytes;
  }
  return sum;
}

std::string TrafficTable(const Plan& plan) {
  TextTable table({"pipeline rank", "activations", "their gradients", "weights' gradients, norm", "parameters", "shards"});
  for (int rank = 0; rank < plan.job.layout.pp; ++rank) {
    const TakenIn bytes = TakenInBy(plan, PipelineRank(rank));
    table.Add({absl::StrCat(rank), Grouped(bytes.activations), Grouped(bytes.gradients), Grouped(bytes.reduced),
               Grouped(bytes.parameters), Grouped(bytes.shards)});
  }
  return table.ToString();
}

}  // namespace

std::string GridText(const Plan& plan) {
  const RankGrid grid = plan.job.layout.grid();
  if (grid.ranks() == 1) return "";
  const bool several = grid.dp() * grid.tp() > 1;
  return absl::StrCat(several ? absl::StrCat("\nWorld ranks (layout.rank_order ", ToString(plan.job.layout.order), ")\n",
                                             Picture(grid))
                              : "",
                      "\nTaken in by a rank in a step, in bytes\n", TrafficTable(plan));
}

}  // namespace sluice
