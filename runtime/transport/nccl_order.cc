#include "runtime/transport/nccl_order.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/philox.h"
#include "base/status.h"
#include "runtime/transport/collective.h"
#include "runtime/transport/directory.h"
#include "runtime/transport/nccl_legs.h"

namespace sluice::internal {
namespace {

uint64_t HashOf(absl::Span<const int64_t> parts) {
  uint64_t hash = parts.size();
  for (const int64_t bytes : parts) hash = MixBits(hash ^ static_cast<uint64_t>(bytes));
  return hash;
}

// What a member alone can see.
absl::Status CheckOwn(const GroupSpec& spec, size_t place, const Request& request) {
  const WorldRank rank = spec.members[place];
  const auto members = static_cast<int64_t>(spec.members.size());
  const absl::Span<const int64_t> parts = request.parts;
  if (IsEven(request)) {
    return CheckBytes(rank, " has room for ", request.all.bytes(), members * request.mine.bytes());
  }
  if (static_cast<int64_t>(parts.size()) != members) {
    return absl::InvalidArgumentError(absl::StrCat("the ", members, " members must name the same parts: rank ",
                                                   rank.value(), " has [", absl::StrJoin(parts, ", "), "] bytes"));
  }
  return CheckNamedSizes(
      KindOf(request),
      {.rank = rank, .mine_bytes = request.mine.bytes(), .all_bytes = request.all.bytes(), .parts = parts}, place);
}

}  // namespace

bool PostingOrder::FitsTransfer(const ChannelSpec& spec, const Request& request) {
  Halves& halves = halves_[{spec.queue, spec.sender, spec.receiver}];
  if (halves.targets.size() == 0) halves.kind = request.kind;
  if (halves.kind == request.kind) {
    halves.targets.Push(request.target);
    return true;
  }
  return halves.targets.Pop() == request.target;
}

absl::Status PostingOrder::CheckCollective(const GroupSpec& spec, size_t place, size_t members_here,
                                           const Request& request) {
  Members& members = members_[spec.id];
  const auto number = static_cast<size_t>(members.counts[place]++ - members.ended);
  if (number == members.posted.size()) {
    members.posted.Push({KindOf(request), HashOf(request.parts), spec.members[place], members_here, absl::OkStatus()});
  }
  Posted& posted = members.posted[number];
  posted.error.Update(CheckAlike(posted, spec.members[place], request));
  posted.error.Update(CheckOwn(spec, place, request));
  if (--posted.members_left > 0) return absl::OkStatus();
  ++members.ended;
  return members.posted.Pop().error;  // members post in order, so the first is the first to be complete
}

absl::Status PostingOrder::CheckAlike(const Posted& posted, WorldRank rank, const Request& request) {
  if (posted.kind != KindOf(request)) {
    return absl::InvalidArgumentError(absl::StrCat("the members' operations differ: rank ", posted.rank.value(),
                                                   " has posted a ", Name(posted.kind), ", rank ", rank.value(), " a ",
                                                   Name(KindOf(request))));
  }
  if (posted.parts == HashOf(request.parts)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the members must name the same parts: rank ", rank.value(), " has [",
                                                 absl::StrJoin(request.parts, ", "), "] bytes, rank ",
                                                 posted.rank.value(), " others"));
}

}  // namespace sluice::internal
