// What a collective does to memory, as data: copies between the members of one process, and what this process gives to
// and gets from others. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/ids.h"

namespace sluice::internal {

enum class CollectiveKind : uint8_t { kAllGather, kAllToAll };
inline absl::string_view Name(CollectiveKind kind) {
  return kind == CollectiveKind::kAllGather ? "gather" : "all-to-all";
}

// One member's end of a collective. Of members in other processes the memory is null.
struct Member {
  WorldRank rank;
  int process = 0;
  std::byte* mine = nullptr;
  std::byte* all = nullptr;
  int64_t mine_bytes = 0;
  int64_t all_bytes = 0;
  absl::Span<const int64_t> parts;  // of an all-to-all; of a gather: empty, if it names none
};

struct Copy {
  std::byte* to;
  const std::byte* from;
  int64_t bytes;
  size_t target;  // whose memory `to` is, by its place among the members
};

inline void MakeCopies(const std::vector<Copy>& copies) {
  for (const Copy& copy : copies) std::memcpy(copy.to, copy.from, copy.bytes);
}

// Goes to, or comes from, another process.
struct Part {
  int process;
  std::byte* data;
  int64_t bytes;
};

struct CollectivePlan {
  std::vector<Copy> copies;
  std::vector<Part> receives;  // per process in the order in which it sends them
  std::vector<Copy> received;  // what came for one member and is others' too
};

// INVALID_ARGUMENT: a rank has another number of bytes than it should. `has`: " gives ", " has room for ".
absl::Status CheckBytes(WorldRank rank, absl::string_view has, int64_t bytes, int64_t wanted);
// INVALID_ARGUMENT: the member at this place gives, or has room for, something else than the parts that it names say.
// REQUIRES: it names one for each member.
absl::Status CheckNamedSizes(CollectiveKind kind, const Member& member, size_t place);
// INVALID_ARGUMENT: the members' sizes don't fit together. `members` are in the group's order.
absl::Status CheckSizes(CollectiveKind kind, const std::vector<Member>& members);

// What process `self` gives to others: needs the sizes of its own members only. No part is empty.
void PlanSends(CollectiveKind kind, const std::vector<Member>& members, int self, std::vector<Part>* sends);
// All else, in place of what is in `plan`. REQUIRES: CheckSizes() is OK.
void PlanRest(CollectiveKind kind, const std::vector<Member>& members, int self, CollectivePlan* plan);

}  // namespace sluice::internal
