#include "runtime/transport/collective.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"

namespace sluice::internal {
namespace {

void Append(std::byte* to, const std::byte* from, int64_t bytes, std::vector<Copy>* copies) {
  if (bytes > 0 && to != from) copies->push_back({.to = to, .from = from, .bytes = bytes});
}

absl::Status CheckBytes(const Member& member, absl::string_view has, int64_t bytes, int64_t wanted) {
  if (bytes == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("rank ", member.rank.value(), has, bytes, " of ", wanted, " bytes"));
}

absl::Status CheckParts(const std::vector<Member>& members, size_t place) {
  const Member& member = members[place];
  const absl::Span<const int64_t> parts = member.parts;
  const bool negative = std::any_of(parts.begin(), parts.end(), [](int64_t bytes) { return bytes < 0; });
  if (parts.size() != members.size() || negative || parts != members[0].parts) {
    return absl::InvalidArgumentError(absl::StrCat("the ", members.size(), " members must name the same parts: rank ",
                                                   member.rank.value(), " has [", absl::StrJoin(parts, ", "),
                                                   "], rank ", members[0].rank.value(), " [",
                                                   absl::StrJoin(members[0].parts, ", "), "] bytes"));
  }
  RETURN_IF_ERROR(
      CheckBytes(member, " gives ", member.mine.bytes(), std::accumulate(parts.begin(), parts.end(), int64_t{0})));
  return CheckBytes(member, " has room for ", member.all.bytes(), parts[place] * static_cast<int64_t>(parts.size()));
}

}  // namespace

absl::Status PlanAllGather(const std::vector<Member>& members, std::vector<Copy>* copies) {
  int64_t bytes = 0;
  for (const Member& member : members) bytes += member.mine.bytes();
  for (const Member& target : members) {
    RETURN_IF_ERROR(CheckBytes(target, " has room for ", target.all.bytes(), bytes));
    std::byte* to = target.all.data;
    for (const Member& source : members) {
      Append(to, source.mine.data, source.mine.bytes(), copies);
      to += source.mine.bytes();
    }
  }
  return absl::OkStatus();
}

absl::Status PlanAllToAll(const std::vector<Member>& members, std::vector<Copy>* copies) {
  for (size_t place = 0; place < members.size(); ++place) RETURN_IF_ERROR(CheckParts(members, place));
  int64_t from = 0;
  for (size_t target = 0; target < members.size(); ++target) {
    const int64_t bytes = members[target].parts[target];
    for (size_t source = 0; source < members.size(); ++source) {
      Append(members[target].all.data + source * bytes, members[source].mine.data + from, bytes, copies);
    }
    from += bytes;
  }
  return absl::OkStatus();
}

}  // namespace sluice::internal
