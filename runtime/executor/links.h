// The channels and groups that a rank's programs need, with their ids: a pure function of what all ranks know, so both
// ends of a channel describe it alike. Ids are unique among all pipelines of the grid. One channel carries one kind of
// message over one border of stages, in one program.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "kernels/transport.h"
#include "scheduler/program.h"
#include "scheduler/rank_grid.h"

namespace sluice {

// A StepControl, on its way down the ranks.
inline constexpr int64_t kDecisionBytes = 16;

// What leaves a stage.
struct StageMessages {
  int64_t activation_bytes = 0;  // to the next stage; of the last, in generation, tokens to the first; else 0
  int64_t gradient_bytes = 0;    // of its input, to the previous stage; 0 for the first
  std::string activation;        // shape and type, for people: "[8, 256, 384] f32"
};

// A tensor that several stages use, as lowering was told (Collective::tensor).
struct TiedUses {
  int tensor = 0;
  std::string name;             // global name, as in TiedGradient
  std::vector<StageId> stages;  // in the order of the uses
};

// What all ranks of one pipeline know: that of replica and shard in a grid of them.
struct PipelineLayout {
  std::vector<const Program*> programs;  // same placement
  std::vector<StageMessages> messages;   // per stage: what slots have room for
  // Per program, of those whose messages are smaller; empty, or without an entry for a program: `messages`.
  std::vector<std::vector<StageMessages>> smaller_messages;
  std::vector<TiedUses> tied;            // any order
  int64_t norm_bytes = 0;                // of the squared norms of all ranks; 0: no program is post-validated
  RankGrid grid;                         // its pp: the ranks of the programs
  int replica = 0;
  int shard = 0;

  const std::vector<StageMessages>& MessagesOf(size_t program) const {
    const bool smaller = program < smaller_messages.size() && !smaller_messages[program].empty();
    return smaller ? smaller_messages[program] : messages;
  }
  WorldRank WorldRankOf(PipelineRank rank) const { return grid.RankOf({rank, replica, shard}); }
};

struct Links {
  std::vector<ChannelSpec> channels;
  std::vector<GroupSpec> groups;
};

// What the endpoint of `rank` must open, the group of its shards included. INVALID_ARGUMENT: a tied tensor is unknown,
// or two of its uses are on one rank and another one elsewhere (not supported).
absl::StatusOr<Links> LinksOf(const PipelineLayout& layout, PipelineRank rank);

// The channel of a SEND or RECV of program number `program`. That of a wrong guess has the channels of the right one,
// whose list it takes over half-way.
ChannelId ChannelOf(const PipelineLayout& layout, size_t program, const Action& transfer);
// Of the shards that hold what `rank` holds, and exchange inside of its actions, in their order; on a queue of its own.
// REQUIRES: there are several.
GroupSpec ShardGroup(const PipelineLayout& layout, PipelineRank rank);
// The group of collective number `collective` of program number `program`: of this pipeline's ranks, or of all
// replicas' (AcrossReplicas), replica by replica.
GroupId GroupOf(const PipelineLayout& layout, size_t program, int collective);
// Bytes of a SEND's or RECV's message in program number `program`.
int64_t MessageBytes(const PipelineLayout& layout, size_t program, const Action& transfer);

}  // namespace sluice
