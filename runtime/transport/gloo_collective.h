// A collective whose members live in several processes, run by the thread of the lane at whose head it stands.
//
// First every process tells every other one what its members have brought (kind, sizes, parts), with the data itself
// behind it where that is small; then all check the same facts and so come to the same verdict; then the parts go
// straight to their places. The order of everything follows from the group's, so tags need only name the group.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "base/world.h"
#include "runtime/transport/collective.h"
#include "runtime/transport/gloo_link.h"

namespace sluice::internal {

struct RemoteCollective {
  CollectiveKind kind = CollectiveKind::kAllGather;
  std::vector<Member> members;   // in the group's order; of other processes only rank and process
  int self = 0;                  // this process
  std::vector<GlooLink*> links;  // by process; null where no member lives
  uint64_t tag = 0;
  Nanoseconds began = 0;  // when all members were there
};

// The most members of one group that one process may have, times the members of the group.
inline constexpr int64_t kMaxMemberPairs = 4096;

// Blocks until all members of this process have what is theirs. INVALID_ARGUMENT: the members disagree.
absl::Status Run(World* world, RemoteCollective* collective);

}  // namespace sluice::internal
