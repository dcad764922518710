#include "runtime/transport/nccl_plan.h"

#include <algorithm>
#include <set>
#include <utility>

namespace sluice::internal {
namespace {

using Key = std::pair<QueueId, std::vector<WorldRank>>;

// The sets of ranks that a queue's channels connect.
class Connected {
 public:
  void Join(WorldRank a, WorldRank b) {
    const WorldRank root_a = RootOf(a), root_b = RootOf(b);
    root_[std::max(root_a, root_b)] = std::min(root_a, root_b);
  }
  std::vector<WorldRank> SetOf(WorldRank rank) {
    std::vector<WorldRank> members;
    for (const auto& [member, root] : root_) {
      if (RootOf(member) == RootOf(rank)) members.push_back(member);
    }
    return members;
  }

 private:
  WorldRank RootOf(WorldRank rank) {
    WorldRank root = root_.try_emplace(rank, rank).first->second;
    while (root_[root] != root) root = root_[root];
    return root;
  }
  std::map<WorldRank, WorldRank> root_;
};

// A split is the first that none of the members is in yet.
void PlaceInSplits(CommunicatorPlan* plan) {
  std::vector<std::set<WorldRank>> taken;
  std::vector<int> colors;
  for (CommunicatorSpec& communicator : plan->communicators) {
    const auto overlaps = [&](const std::set<WorldRank>& ranks) {
      return std::any_of(communicator.members.begin(), communicator.members.end(),
                         [&](WorldRank rank) { return ranks.count(rank) > 0; });
    };
    const auto split = std::find_if(taken.begin(), taken.end(), [&](const auto& ranks) { return !overlaps(ranks); });
    communicator.split = static_cast<int>(split - taken.begin());
    if (split == taken.end()) {
      taken.emplace_back();
      colors.push_back(0);
    }
    taken[communicator.split].insert(communicator.members.begin(), communicator.members.end());
    communicator.color = colors[communicator.split]++;
  }
  plan->splits = static_cast<int>(taken.size());
}

}  // namespace

int CommunicatorSpec::PlaceOf(WorldRank rank) const {
  const auto found = std::find(members.begin(), members.end(), rank);
  return found != members.end() ? static_cast<int>(found - members.begin()) : -1;
}

int CommunicatorPlan::NumberAt(WorldRank rank, size_t communicator) const {
  int number = 0;
  for (const CommunicatorSpec& other : communicators) {
    number += other.split < communicators[communicator].split && other.PlaceOf(rank) >= 0;
  }
  return number;
}

CommunicatorPlan PlanCommunicators(const std::vector<Specs>& all) {
  std::map<ChannelId, ChannelSpec> channels;
  std::map<GroupId, GroupSpec> groups;
  for (const Specs& specs : all) {
    for (const ChannelSpec& spec : specs.channels) channels.emplace(spec.id, spec);
    for (const GroupSpec& spec : specs.groups) groups.emplace(spec.id, spec);
  }
  std::map<QueueId, Connected> connected;
  for (const auto& [id, spec] : channels) connected[spec.queue].Join(spec.sender, spec.receiver);

  CommunicatorPlan plan;
  std::map<Key, size_t> known;
  const auto number_of = [&](QueueId queue, std::vector<WorldRank> members) {
    const auto [found, fresh] = known.try_emplace({queue, members}, plan.communicators.size());
    if (fresh) plan.communicators.push_back({.queue = queue, .members = std::move(members)});
    return found->second;
  };
  for (const auto& [id, spec] : channels) {
    plan.of_channel[id] = number_of(spec.queue, connected[spec.queue].SetOf(spec.sender));
  }
  for (const auto& [id, spec] : groups) plan.of_group[id] = number_of(spec.queue, spec.members);
  PlaceInSplits(&plan);
  return plan;
}

}  // namespace sluice::internal
