// Which communicators a job has, and what the ranks of one process see of one another.
#include "runtime/transport/nccl_plan.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/philox.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/transport/nccl_legs.h"
#include "runtime/transport/nccl_order.h"

namespace sluice::internal {
namespace {

ChannelSpec Edge(int id, int sender, int receiver, int queue) {
  return {.id = ChannelId(id), .sender = WorldRank(sender), .receiver = WorldRank(receiver), .queue = QueueId(queue)};
}
GroupSpec Group(int id, std::vector<int> members, int queue) {
  GroupSpec group{.id = GroupId(id), .queue = QueueId(queue)};
  for (const int member : members) group.members.push_back(WorldRank(member));
  return group;
}
std::vector<int> MembersOf(const CommunicatorPlan& plan, size_t communicator) {
  std::vector<int> members;
  for (const WorldRank member : plan.communicators[communicator].members) members.push_back(member.value());
  return members;
}

// Two pipelines of three ranks, each with its channels up and down, and gradients exchanged stage by stage.
TEST(NcclPlan, EachQueueOfEachPipelineAndEachStageHasACommunicator) {
  Specs specs;
  for (const int first : {0, 3}) {
    for (int i = 0; i < 2; ++i) {
      specs.channels.push_back(Edge(10 * first + i, first + i, first + i + 1, 1));
      specs.channels.push_back(Edge(10 * first + 5 + i, first + i + 1, first + i, 2));
    }
  }
  for (const int stage : {0, 1, 2}) specs.groups.push_back(Group(stage, {stage, stage + 3}, 3));
  specs.groups.push_back(Group(3, {0, 3}, 3));  // another one of the same ranks in the same queue
  const CommunicatorPlan plan = PlanCommunicators({specs, specs});
  ASSERT_EQ(plan.communicators.size(), 7u);
  EXPECT_EQ(plan.splits, 3);
  EXPECT_EQ(MembersOf(plan, plan.of_channel.at(ChannelId(1))), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(MembersOf(plan, plan.of_channel.at(ChannelId(36))), (std::vector<int>{3, 4, 5}));
  EXPECT_NE(plan.of_channel.at(ChannelId(1)), plan.of_channel.at(ChannelId(6)));
  EXPECT_EQ(plan.of_group.at(GroupId(3)), plan.of_group.at(GroupId(0)));
  EXPECT_EQ(MembersOf(plan, plan.of_group.at(GroupId(2))), (std::vector<int>{2, 5}));
}

// Whoever takes part in a split takes part once; a rank's communicators are numbered as their splits follow.
TEST(NcclPlan, ARankIsInOneCommunicatorOfASplit) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    uint64_t random = seed;
    const auto draw = [&](int below) { return static_cast<int>((random = MixBits(random + seed)) % below); };
    Specs specs;
    for (int i = 0; i < 12; ++i) {
      const int a = draw(8), b = draw(8);
      if (a != b) specs.channels.push_back(Edge(i, a, b, draw(3)));
    }
    for (int i = 0; i < 6; ++i) {
      std::set<int> members;
      while (members.size() < 2) members.insert(draw(8));
      specs.groups.push_back(Group(i, {members.begin(), members.end()}, draw(3)));
    }
    const CommunicatorPlan plan = PlanCommunicators({specs});
    std::set<std::pair<int, WorldRank>> taken;
    std::set<std::pair<int, int>> colors;
    for (size_t i = 0; i < plan.communicators.size(); ++i) {
      const CommunicatorSpec& communicator = plan.communicators[i];
      EXPECT_LT(communicator.split, plan.splits);
      EXPECT_TRUE(colors.insert({communicator.split, communicator.color}).second);
      for (const WorldRank member : communicator.members) {
        EXPECT_TRUE(taken.insert({communicator.split, member}).second) << "seed " << seed;
        EXPECT_LE(plan.NumberAt(member, i), communicator.split);
      }
    }
    for (const ChannelSpec& spec : specs.channels) {
      const CommunicatorSpec& communicator = plan.communicators[plan.of_channel.at(spec.id)];
      EXPECT_EQ(communicator.queue, spec.queue);
      EXPECT_GE(communicator.PlaceOf(spec.sender), 0);
      EXPECT_GE(communicator.PlaceOf(spec.receiver), 0);
    }
  }
}

// The legs of all ranks together bring each part to its place: every send has its receive of the same size, in order.
TEST(NcclLegs, OfAllRanksFitTogether) {
  const std::vector<int64_t> parts = {8, 0, 4, 12};
  for (const Request::Kind kind : {Request::Kind::kAllGather, Request::Kind::kAllToAll}) {
    std::vector<std::vector<cuda::NcclLeg>> legs(4);
    std::vector<std::vector<std::byte>> all(4, std::vector<std::byte>(64)), mine(4, std::vector<std::byte>(64));
    for (int rank = 0; rank < 4; ++rank) {
      Request request{.kind = kind,
                      .mine = {mine[rank].data(), DType::kI32, {6}},
                      .all = {all[rank].data(), DType::kI32, {12}},
                      .parts = parts};
      MakeLegs(request, rank, 4, &legs[rank]);
    }
    for (int from = 0; from < 4; ++from) {
      for (int to = 0; to < 4; ++to) {
        int64_t sent = 0, received = 0;
        for (const cuda::NcclLeg& leg : legs[from]) sent += leg.peer == to && leg.from != nullptr ? leg.bytes : 0;
        for (const cuda::NcclLeg& leg : legs[to]) received += leg.peer == from && leg.to != nullptr ? leg.bytes : 0;
        EXPECT_EQ(sent, parts[kind == Request::Kind::kAllGather ? from : to]);
        EXPECT_EQ(received, sent);
      }
    }
  }
}

TEST(NcclOrder, ChannelsThatCrossAreSeenByWhoeverPostsSecond) {
  PostingOrder order;
  const ChannelSpec a = Edge(0, 0, 1, 4), b = Edge(1, 0, 1, 4);
  const auto post = [&](const ChannelSpec& spec, Request::Kind kind) {
    return order.FitsTransfer(spec, {.kind = kind, .target = static_cast<size_t>(spec.id.value())});
  };
  EXPECT_TRUE(post(a, Request::Kind::kSend));
  EXPECT_TRUE(post(b, Request::Kind::kSend));
  EXPECT_TRUE(post(a, Request::Kind::kRecv));
  EXPECT_TRUE(post(b, Request::Kind::kRecv));
  EXPECT_TRUE(post(b, Request::Kind::kRecv)) << "the receive may come first";
  EXPECT_FALSE(post(a, Request::Kind::kSend));
}

}  // namespace
}  // namespace sluice::internal
