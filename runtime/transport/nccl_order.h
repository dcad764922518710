// NCCL matches messages by their order alone. Where both ends of a transfer, or several members of a group, are in one
// process, this says whether they post the same. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>

#include "absl/status/status.h"
#include "runtime/transport/collective.h"
#include "runtime/transport/request.h"
#include "runtime/transport/ring.h"

namespace sluice::internal {

class PostingOrder {
 public:
  // A rank posts one half of a message between these two ranks, in this queue. False: the half that it will meet is of
  // another channel.
  bool FitsTransfer(const ChannelSpec& spec, const Request& request);

  // The member at `place` posts its part of the group's next collective. INVALID_ARGUMENT, once all members here have
  // posted theirs: a member's sizes don't fit the parts that it names, or what another member has posted.
  absl::Status CheckCollective(const GroupSpec& spec, size_t place, size_t members_here, const Request& request);

 private:
  // Of those posted by one end and not yet by the other.
  struct Halves {
    Ring<size_t> targets;
    Request::Kind kind = Request::Kind::kSend;
  };
  // What the first member has posted, until all here have.
  struct Posted {
    CollectiveKind kind = CollectiveKind::kAllGather;
    uint64_t parts = 0;  // a hash of them
    WorldRank rank;
    size_t members_left = 0;
    absl::Status error;
  };
  static absl::Status CheckAlike(const Posted& posted, WorldRank rank, const Request& request);
  struct Members {
    Ring<Posted> posted;
    int64_t ended = 0;                 // collectives that all have posted
    std::map<size_t, int64_t> counts;  // by place
  };

  std::map<std::tuple<QueueId, WorldRank, WorldRank>, Halves> halves_;
  std::map<GroupId, Members> members_;
};

}  // namespace sluice::internal
