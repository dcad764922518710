// Which communicators of NCCL a job has, from what all its ranks have opened: for the transfers of a queue one for each
// set of ranks that its channels connect (a pipeline, say), and one for each queue and list of members of a group. All
// are split from one world, as many in one split as have no rank in common. Pure: all processes come to the same.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "base/ids.h"
#include "runtime/transport/process_specs.h"

namespace sluice::internal {

struct CommunicatorSpec {
  QueueId queue;
  std::vector<WorldRank> members;  // by rank in it
  int split = 0;                   // which, and with which color
  int color = 0;

  // Rank in it; -1: no member.
  int PlaceOf(WorldRank rank) const;
};

struct CommunicatorPlan {
  std::vector<CommunicatorSpec> communicators;
  int splits = 0;
  std::map<ChannelId, size_t> of_channel;  // in communicators
  std::map<GroupId, size_t> of_group;

  // How many of those that the rank is in come before.
  int NumberAt(WorldRank rank, size_t communicator) const;
};

// `all`: of each process. REQUIRES: they agree (CheckAgreement).
CommunicatorPlan PlanCommunicators(const std::vector<Specs>& all);

}  // namespace sluice::internal
