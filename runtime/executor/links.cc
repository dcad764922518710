#include "runtime/executor/links.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {
namespace {

bool IsForwardTransfer(ActionKind kind) { return kind == ActionKind::kSendForward || kind == ActionKind::kRecvForward; }

// The stage that the message of a transfer leaves.
StageId Source(const Action& transfer) {
  switch (transfer.kind) {
    case ActionKind::kRecvForward:
      return StageId(transfer.stage.value() - 1);
    case ActionKind::kRecvBackward:
      return StageId(transfer.stage.value() + 1);
    default:
      return transfer.stage;
  }
}

ChannelSpec ChannelFor(const PipelineLayout& layout, size_t program, PipelineRank rank, const Action& transfer) {
  const int from = Source(transfer).value();
  const bool forward = IsForwardTransfer(transfer.kind);
  const PipelineRank sender = IsSend(transfer.kind) ? rank : transfer.peer;
  const PipelineRank receiver = IsSend(transfer.kind) ? transfer.peer : rank;
  const int border = forward ? from : from - 1;  // the activation's shape is that of its gradient
  return {.id = ChannelOf(layout, program, transfer),
          .sender = layout.WorldRankOf(sender),
          .receiver = layout.WorldRankOf(receiver),
          .queue = transfer.queue,
          .bytes = MessageBytes(layout, transfer),
          .message = absl::StrCat(layout.programs[program]->name, " ", forward ? "activation " : "gradient ", from,
                                  "->", forward ? from + 1 : from - 1, " ", layout.messages[border].activation)};
}

// Members in the order in which the parts are put together: of the uses for a tied tensor, of the ranks for the norm.
absl::StatusOr<std::vector<PipelineRank>> MembersInOrder(const PipelineLayout& layout, const Program& program,
                                                         const Collective& collective) {
  if (collective.kind == CollectiveKind::kNorm) return collective.members;
  const auto uses = std::find_if(layout.tied.begin(), layout.tied.end(),
                                 [&](const TiedUses& tied) { return tied.tensor == collective.tensor; });
  if (uses == layout.tied.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the program exchanges tied tensor ", collective.tensor, ", which the layout doesn't name"));
  }
  std::vector<PipelineRank> members;
  for (StageId stage : uses->stages) members.push_back(program.placement.RankOf(stage));
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

}  // namespace

ChannelId ChannelOf(const PipelineLayout& layout, size_t program, const Action& transfer) {
  const int stages = layout.programs[program]->placement.stages();
  const int border = 2 * Source(transfer).value() + (IsForwardTransfer(transfer.kind) ? 0 : 1);
  return ChannelId(layout.first_id + static_cast<int>(program) * 2 * stages + border);
}

GroupId GroupOf(const PipelineLayout& layout, size_t program, int collective) {
  int id = layout.first_id + collective;
  for (size_t i = 0; i < program; ++i) id += static_cast<int>(layout.programs[i]->collectives.size());
  return GroupId(id);
}

int64_t MessageBytes(const PipelineLayout& layout, const Action& transfer) {
  const StageMessages& source = layout.messages[Source(transfer).index()];
  return IsForwardTransfer(transfer.kind) ? source.activation_bytes : source.gradient_bytes;
}

absl::StatusOr<Links> LinksOf(const PipelineLayout& layout, PipelineRank rank) {
  Links links;
  for (size_t p = 0; p < layout.programs.size(); ++p) {
    const Program& program = *layout.programs[p];
    std::set<ChannelId> known;
    for (const Action& action : program.ranks[rank.index()]) {
      if (IsTransfer(action.kind) && known.insert(ChannelOf(layout, p, action)).second) {
        links.channels.push_back(ChannelFor(layout, p, rank, action));
      }
      if (action.kind != ActionKind::kCollective) continue;
      const Collective& collective = program.collectives[action.collective];
      ASSIGN_OR_RETURN(const std::vector<PipelineRank> members, MembersInOrder(layout, program, collective));
      GroupSpec group{.id = GroupOf(layout, p, action.collective), .queue = action.queue};
      for (PipelineRank member : members) group.members.push_back(layout.WorldRankOf(member));
      group.purpose = collective.kind == CollectiveKind::kNorm
                          ? "gradient norm"
                          : absl::StrCat("gradients of tied tensor ", collective.tensor);
      links.groups.push_back(std::move(group));
    }
  }
  return links;
}

}  // namespace sluice
