#include "runtime/transport/collective.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"

namespace sluice::internal {
namespace {

void Append(const Copy& copy, std::vector<Copy>* copies) {
  if (copy.bytes > 0 && copy.to != copy.from) copies->push_back(copy);
}

void Append(int process, std::byte* data, int64_t bytes, std::vector<Part>* parts) {
  if (bytes > 0) parts->push_back({.process = process, .data = data, .bytes = bytes});
}

absl::Status CheckNames(const std::vector<Member>& members, size_t place) {
  const Member& member = members[place];
  const absl::Span<const int64_t> parts = member.parts;
  const bool negative = std::any_of(parts.begin(), parts.end(), [](int64_t bytes) { return bytes < 0; });
  if (parts.size() != members.size() || negative || parts != members[0].parts) {
    return absl::InvalidArgumentError(absl::StrCat("the ", members.size(), " members must name the same parts: rank ",
                                                   member.rank.value(), " has [", absl::StrJoin(parts, ", "),
                                                   "], rank ", members[0].rank.value(), " [",
                                                   absl::StrJoin(members[0].parts, ", "), "] bytes"));
  }
  return absl::OkStatus();
}

// A part that is everybody's comes to each process once.
void PlanAllGather(const std::vector<Member>& members, int self, CollectivePlan* plan) {
  const Member* first = nullptr;  // of this process
  for (size_t i = 0; i < members.size(); ++i) {
    const Member& target = members[i];
    if (target.process != self) continue;
    int64_t place = 0;
    for (const Member& source : members) {
      std::byte* to = target.all + place;
      if (source.process == self) {
        Append({.to = to, .from = source.mine, .bytes = source.mine_bytes, .target = i}, &plan->copies);
      } else if (first == nullptr) {
        Append(source.process, to, source.mine_bytes, &plan->receives);
      } else {
        Append({.to = to, .from = first->all + place, .bytes = source.mine_bytes, .target = i}, &plan->received);
      }
      place += source.mine_bytes;
    }
    if (first == nullptr) first = &target;
  }
}

void PlanAllToAll(const std::vector<Member>& members, int self, CollectivePlan* plan) {
  for (size_t source = 0; source < members.size(); ++source) {
    int64_t from = 0;
    for (size_t i = 0; i < members.size(); ++i) {
      const Member& target = members[i];
      const int64_t bytes = target.parts[i];
      if (target.process == self) {
        std::byte* to = target.all + source * bytes;
        if (members[source].process == self) {
          Append({.to = to, .from = members[source].mine + from, .bytes = bytes, .target = i}, &plan->copies);
        } else {
          Append(members[source].process, to, bytes, &plan->receives);
        }
      }
      from += bytes;
    }
  }
}

}  // namespace

absl::Status CheckBytes(WorldRank rank, absl::string_view has, int64_t bytes, int64_t wanted) {
  if (bytes == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("rank ", rank.value(), has, bytes, " of ", wanted, " bytes"));
}

absl::Status CheckNamedSizes(CollectiveKind kind, const Member& member, size_t place) {
  const absl::Span<const int64_t> parts = member.parts;
  const int64_t sum = std::accumulate(parts.begin(), parts.end(), int64_t{0});
  const bool gathers = kind == CollectiveKind::kAllGather;
  RETURN_IF_ERROR(CheckBytes(member.rank, " gives ", member.mine_bytes, gathers ? parts[place] : sum));
  return CheckBytes(member.rank, " has room for ", member.all_bytes,
                    gathers ? sum : parts[place] * static_cast<int64_t>(parts.size()));
}

absl::Status CheckSizes(CollectiveKind kind, const std::vector<Member>& members) {
  const auto add = [](int64_t sum, const Member& member) { return sum + member.mine_bytes; };
  const int64_t bytes = std::accumulate(members.begin(), members.end(), int64_t{0}, add);
  for (size_t place = 0; place < members.size(); ++place) {
    const Member& member = members[place];
    if (kind == CollectiveKind::kAllToAll || !member.parts.empty()) {
      RETURN_IF_ERROR(CheckNames(members, place));
      RETURN_IF_ERROR(CheckNamedSizes(kind, member, place));
    }
    if (kind == CollectiveKind::kAllGather) {
      RETURN_IF_ERROR(CheckBytes(member.rank, " has room for ", member.all_bytes, bytes));
    }
  }
  return absl::OkStatus();
}

void PlanSends(CollectiveKind kind, const std::vector<Member>& members, int self, std::vector<Part>* sends) {
  for (const Member& source : members) {
    if (source.process != self) continue;
    std::byte* from = source.mine;
    std::vector<int> given;  // which processes have this member's part already
    for (size_t target = 0; target < members.size(); ++target) {
      const int process = members[target].process;
      const int64_t bytes = kind == CollectiveKind::kAllToAll ? source.parts[target] : source.mine_bytes;
      const bool first = std::find(given.begin(), given.end(), process) == given.end();
      if (process != self && (first || kind == CollectiveKind::kAllToAll)) Append(process, from, bytes, sends);
      given.push_back(process);
      if (kind == CollectiveKind::kAllToAll) from += bytes;
    }
  }
}

void PlanRest(CollectiveKind kind, const std::vector<Member>& members, int self, CollectivePlan* plan) {
  plan->copies.clear();
  plan->receives.clear();
  plan->received.clear();
  if (kind == CollectiveKind::kAllGather) {
    PlanAllGather(members, self, plan);
  } else {
    PlanAllToAll(members, self, plan);
  }
}

}  // namespace sluice::internal
