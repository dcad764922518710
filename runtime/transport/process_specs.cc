#include "runtime/transport/process_specs.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "proto/transport.pb.h"
#include "runtime/transport/specs.h"

namespace sluice::internal {
namespace {

constexpr uint32_t kFormatVersion = 1;

std::vector<WorldRank> Ends(const ChannelSpec& spec) { return {spec.sender, spec.receiver}; }
std::vector<WorldRank> Ends(const GroupSpec& spec) { return spec.members; }
const std::vector<ChannelSpec>& Same(const Specs& specs, const ChannelSpec&) { return specs.channels; }
const std::vector<GroupSpec>& Same(const Specs& specs, const GroupSpec&) { return specs.groups; }

// What `from` has, `at` must have too, if one of its ranks takes part.
template <class Spec>
absl::Status CheckOne(const Spec& spec, int from, const Specs& at_specs, int at, const std::vector<int>& process_of) {
  for (const WorldRank rank : Ends(spec)) {
    if (!rank.valid() || rank.index() >= process_of.size()) {
      return absl::InvalidArgumentError(absl::StrCat("process ", from, " opens ", ToString(spec),
                                                     ", but there are ranks 0 to ", process_of.size() - 1));
    }
    if (process_of[rank.index()] != at) continue;
    const std::vector<Spec>& others = Same(at_specs, spec);
    const auto other = std::find_if(others.begin(), others.end(), [&](const Spec& o) { return o.id == spec.id; });
    if (other == others.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("rank ", rank.value(), " (process ", at, ") has no ", ToString(spec)));
    }
    if (*other != spec) {
      return absl::InvalidArgumentError(absl::StrCat("not the same in two processes: process ", from, " opens ",
                                                     ToString(spec), "; process ", at, " opens ", ToString(*other)));
    }
  }
  return absl::OkStatus();
}

template <class Spec>
absl::Status CheckAll(const std::vector<Specs>& all, const std::vector<int>& process_of, int self) {
  for (int process = 0; process < static_cast<int>(all.size()); ++process) {
    if (process == self) continue;
    for (const Spec& spec : Same(all[self], Spec())) {
      RETURN_IF_ERROR(CheckOne(spec, self, all[process], process, process_of));
    }
    for (const Spec& spec : Same(all[process], Spec())) {
      RETURN_IF_ERROR(CheckOne(spec, process, all[self], self, process_of));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string Encode(const Specs& specs) {
  proto::TransportSpecs message;
  message.set_format_version(kFormatVersion);
  for (const ChannelSpec& spec : specs.channels) {
    auto* channel = message.add_channels();
    channel->set_id(spec.id.value());
    channel->set_sender(spec.sender.value());
    channel->set_receiver(spec.receiver.value());
    channel->set_queue(spec.queue.value());
    channel->set_bytes(spec.bytes);
    channel->set_message(spec.message);
  }
  for (const GroupSpec& spec : specs.groups) {
    auto* group = message.add_groups();
    group->set_id(spec.id.value());
    for (const WorldRank member : spec.members) group->add_members(member.value());
    group->set_queue(spec.queue.value());
    group->set_purpose(spec.purpose);
  }
  return message.SerializeAsString();
}

absl::StatusOr<Specs> DecodeSpecs(const std::string& text) {
  proto::TransportSpecs message;
  if (!message.ParseFromString(text) || message.format_version() != kFormatVersion) {
    return absl::InvalidArgumentError("what another process tells about its channels can't be read: another version?");
  }
  Specs specs;
  for (const auto& channel : message.channels()) {
    specs.channels.push_back({.id = ChannelId(channel.id()),
                              .sender = WorldRank(channel.sender()),
                              .receiver = WorldRank(channel.receiver()),
                              .queue = QueueId(channel.queue()),
                              .bytes = channel.bytes(),
                              .message = channel.message()});
  }
  for (const auto& group : message.groups()) {
    GroupSpec& spec = specs.groups.emplace_back();
    spec.id = GroupId(group.id());
    for (const int32_t member : group.members()) spec.members.push_back(WorldRank(member));
    spec.queue = QueueId(group.queue());
    spec.purpose = group.purpose();
  }
  return specs;
}

absl::Status CheckAgreement(const std::vector<Specs>& all, const std::vector<int>& process_of, int self) {
  RETURN_IF_ERROR(CheckAll<ChannelSpec>(all, process_of, self));
  return CheckAll<GroupSpec>(all, process_of, self);
}

absl::StatusOr<std::vector<Specs>> ExchangeSpecs(const ExchangeBlobs& exchange, const Specs& mine,
                                                 const std::vector<int>& process_of, int self, absl::Status* verdict) {
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, exchange("specs", Encode(mine)));
  std::vector<Specs> all;
  for (const std::string& text : texts) {
    absl::StatusOr<Specs> specs = DecodeSpecs(text);
    verdict->Update(specs.status());
    all.push_back(specs.ok() ? *std::move(specs) : Specs());
  }
  verdict->Update(CheckAgreement(all, process_of, self));
  return all;
}

}  // namespace sluice::internal
