#include "runtime/executor/links.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace sluice {
namespace {

// The rank that a message of post-validation leaves: norms go up, decisions down.
int SenderOf(const Action& transfer) {
  if (IsRecv(transfer.kind)) return transfer.peer.value();
  return transfer.peer.value() + (transfer.kind == ActionKind::kSendNorm ? -1 : 1);
}

bool IsNorm(const Action& transfer) {
  return transfer.kind == ActionKind::kSendNorm || transfer.kind == ActionKind::kRecvNorm;
}

// The stage whose result a stage transfer moves.
StageId SourceOf(const Program& program, const Action& transfer) {
  return IsForwardTransfer(transfer.kind) ? program.path().Source(transfer).stage : SourceStage(transfer);
}

std::string DescribeMessage(const PipelineLayout& layout, size_t number, const Action& transfer) {
  const std::string& program = layout.programs[number]->name;
  if (!IsStageTransfer(transfer.kind)) {
    const int from = SenderOf(transfer);
    return absl::StrCat(program, IsNorm(transfer) ? " gradient norms " : " decision about the step before ", from, "->",
                        IsNorm(transfer) ? from + 1 : from - 1);
  }
  const int from = SourceOf(*layout.programs[number], transfer).value();
  const bool forward = IsForwardTransfer(transfer.kind);
  const int border = forward ? from : from - 1;  // the activation's shape is that of its gradient
  const int to = forward ? (from + 1) % layout.programs[number]->placement.stages() : from - 1;
  return absl::StrCat(program, forward ? " activation " : " gradient ", from, "->", to, " ",
                      layout.MessagesOf(number)[border].activation);
}

// Whose channels a program uses.
size_t ChannelProgram(const PipelineLayout& layout, size_t program) {
  if (layout.programs[program]->validation != Validation::kGuessWrong) return program;
  for (size_t i = 0; i < layout.programs.size(); ++i) {
    if (layout.programs[i]->validation == Validation::kGuessRight && layout.programs[i]->pass == PassKind::kTraining) {
      return i;
    }
  }
  return program;
}

ChannelSpec ChannelFor(const PipelineLayout& layout, size_t program, PipelineRank rank, const Action& transfer) {
  const PipelineRank sender = IsSend(transfer.kind) ? rank : transfer.peer;
  const PipelineRank receiver = IsSend(transfer.kind) ? transfer.peer : rank;
  return {.id = ChannelOf(layout, program, transfer),
          .sender = layout.WorldRankOf(sender),
          .receiver = layout.WorldRankOf(receiver),
          .queue = transfer.queue,
          .bytes = MessageBytes(layout, program, transfer),
          .message = DescribeMessage(layout, ChannelProgram(layout, program), transfer)};
}

int CollectivesOf(const PipelineLayout& layout) {
  int collectives = 0;
  for (const Program* program : layout.programs) collectives += static_cast<int>(program->collectives.size());
  return collectives;
}

// Members of one pipeline in the order in which the parts are put together: of the copies for a stage, of the uses for
// a tied tensor, of the ranks for the norm.
absl::StatusOr<std::vector<PipelineRank>> MembersInOrder(const PipelineLayout& layout, const Program& program,
                                                         const Collective& collective) {
  if (collective.kind == CollectiveKind::kNorm) return collective.members;
  if (IsOfStage(collective.kind)) {
    std::vector<PipelineRank> members;
    for (int copy = 0; copy < program.placement.copies(); ++copy) {
      members.push_back(program.placement.RankOf(collective.stage, copy));
    }
    return members;
  }
  const auto uses = std::find_if(layout.tied.begin(), layout.tied.end(),
                                 [&](const TiedUses& tied) { return tied.tensor == collective.tensor; });
  if (uses == layout.tied.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the program exchanges tied tensor ", collective.tensor, ", which the layout doesn't name"));
  }
  std::vector<PipelineRank> members;
  for (StageId stage : uses->stages) members.push_back(program.placement.RankOf(stage, collective.copy));
  std::vector<PipelineRank> sorted = members;
  std::sort(sorted.begin(), sorted.end());
  if (sorted != collective.members) {
    return absl::InvalidArgumentError(
        absl::StrCat("tied tensor '", uses->name,
                     "': two of its uses are on one rank and another one elsewhere; choose cuts "
                     "that keep them on ranks of their own or all on one"));
  }
  return members;
}

std::string PurposeOf(const Collective& collective) {
  switch (collective.kind) {
    case CollectiveKind::kNorm:
      return "gradient norm";
    case CollectiveKind::kTiedGradients:
      return absl::StrCat("gradients of tied tensor ", collective.tensor);
    case CollectiveKind::kStageGradients:
      return absl::StrCat("gradients of stage ", collective.stage.value());
    case CollectiveKind::kSummedGradients:
      return absl::StrCat("summed gradients of stage ", collective.stage.value());
    case CollectiveKind::kParameters:
      return absl::StrCat("parameters of stage ", collective.stage.value());
  }
  return "";
}

}  // namespace

ChannelId ChannelOf(const PipelineLayout& layout, size_t program, const Action& transfer) {
  const Placement& placement = layout.programs[program]->placement;
  const int stages = placement.copies() * placement.stages(), ranks = placement.ranks();
  const int number = IsStageTransfer(transfer.kind)
                         ? 2 * static_cast<int>(placement.Index(SourceOf(*layout.programs[program], transfer), transfer.copy)) +
                               (IsForwardTransfer(transfer.kind) ? 0 : 1)
                         : 2 * stages + 2 * SenderOf(transfer) + (IsNorm(transfer) ? 0 : 1);
  const int per_program = 2 * (stages + ranks), programs = static_cast<int>(layout.programs.size());
  const int pipeline = layout.replica * layout.grid.tp() + layout.shard;
  return ChannelId((pipeline * programs + static_cast<int>(ChannelProgram(layout, program))) * per_program + number);
}

GroupId GroupOf(const PipelineLayout& layout, size_t program, int collective) {
  int number = collective;
  for (size_t i = 0; i < program; ++i) number += static_cast<int>(layout.programs[i]->collectives.size());
  // Each pipeline has numbers of its own, and what spans the replicas follows, for each shard.
  const int replicas = layout.grid.dp(), shards = layout.grid.tp();
  const bool spans = AcrossReplicas(layout.programs[program]->collectives[collective].kind);
  return GroupId(((spans ? replicas : layout.replica) * shards + layout.shard) * CollectivesOf(layout) + number);
}

GroupSpec ShardGroup(const PipelineLayout& layout, PipelineRank rank) {
  CHECK_GT(layout.grid.tp(), 1);
  // Behind the groups of collectives; a queue behind those of all programs.
  const int first = (layout.grid.dp() + 1) * layout.grid.tp() * CollectivesOf(layout);
  GroupSpec group{.id = GroupId(first + layout.replica * layout.grid.pp() + rank.value()),
                  .purpose = "shards of a stage"};
  size_t queues = 0;
  for (const Program* program : layout.programs) queues = std::max(queues, program->queues.size());
  group.queue = QueueId(queues);
  for (int shard = 0; shard < layout.grid.tp(); ++shard) {
    group.members.push_back(layout.grid.RankOf({rank, layout.replica, shard}));
  }
  return group;
}

int64_t MessageBytes(const PipelineLayout& layout, size_t program, const Action& transfer) {
  if (!IsStageTransfer(transfer.kind)) return IsNorm(transfer) ? layout.norm_bytes : kDecisionBytes;
  const StageMessages& source = layout.MessagesOf(program)[SourceOf(*layout.programs[program], transfer).index()];
  return IsForwardTransfer(transfer.kind) ? source.activation_bytes : source.gradient_bytes;
}

absl::StatusOr<Links> LinksOf(const PipelineLayout& layout, PipelineRank rank) {
  Links links;
  std::set<ChannelId> known;
  for (size_t p = 0; p < layout.programs.size(); ++p) {
    const Program& program = *layout.programs[p];
    for (const Action& action : program.ranks[rank.index()]) {
      if (IsTransfer(action.kind) && known.insert(ChannelOf(layout, p, action)).second) {
        links.channels.push_back(ChannelFor(layout, p, rank, action));
      }
      if (!IsCollective(action)) continue;
      const Collective& collective = program.collectives[action.collective];
      ASSIGN_OR_RETURN(const std::vector<PipelineRank> members, MembersInOrder(layout, program, collective));
      GroupSpec group{.id = GroupOf(layout, p, action.collective), .queue = action.queue};
      const bool spans = AcrossReplicas(collective.kind);
      for (int replica = spans ? 0 : layout.replica; replica < (spans ? layout.grid.dp() : layout.replica + 1);
           ++replica) {
        for (PipelineRank member : members)
          group.members.push_back(layout.grid.RankOf({member, replica, layout.shard}));
      }
      group.purpose = PurposeOf(collective);
      links.groups.push_back(std::move(group));
    }
  }
  if (layout.grid.tp() > 1) links.groups.push_back(ShardGroup(layout, rank));
  return links;
}

}  // namespace sluice
