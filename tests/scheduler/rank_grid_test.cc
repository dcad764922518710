#include "scheduler/rank_grid.h"

#include <set>

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(RankGridTest, EveryRankHasAPlaceOfItsOwnInAnyOrder) {
  int orders = 0;
  for (const char* text : {"tp-dp-pp", "tp-pp-dp", "dp-tp-pp", "dp-pp-tp", "pp-tp-dp", "pp-dp-tp"}) {
    const auto order = ParseGridOrder(text);
    ASSERT_TRUE(order.has_value()) << text;
    ++orders;
    const RankGrid grid(3, 2, 4, *order);
    std::set<int> ranks;
    for (int i = 0; i < grid.ranks(); ++i) {
      const GridPlace place = grid.PlaceOf(WorldRank(i));
      EXPECT_EQ(grid.RankOf(place), WorldRank(i));
      EXPECT_LT(place.pipeline.value(), 3);
      EXPECT_LT(place.replica, 2);
      EXPECT_LT(place.shard, 4);
      ranks.insert((place.pipeline.value() * 2 + place.replica) * 4 + place.shard);
    }
    EXPECT_EQ(ranks.size(), 24u);
  }
  EXPECT_EQ(orders, 6);
}

TEST(RankGridTest, TheFirstAxisOfTheOrderVariesFastest) {
  const RankGrid grid(2, 3, 4);
  EXPECT_EQ(grid.PlaceOf(WorldRank(1)), (GridPlace{PipelineRank(0), 0, 1}));
  EXPECT_EQ(grid.PlaceOf(WorldRank(4)), (GridPlace{PipelineRank(0), 1, 0}));
  EXPECT_EQ(grid.PlaceOf(WorldRank(12)), (GridPlace{PipelineRank(1), 0, 0}));
  const RankGrid other(2, 3, 4, *ParseGridOrder("pp-tp-dp"));
  EXPECT_EQ(other.PlaceOf(WorldRank(1)), (GridPlace{PipelineRank(1), 0, 0}));
  EXPECT_EQ(other.PlaceOf(WorldRank(8)), (GridPlace{PipelineRank(0), 1, 0}));
}

TEST(RankGridTest, OtherOrdersAreNone) {
  for (const char* text : {"", "tp", "tp-dp", "tp-dp-dp", "tp-dp-pp-", "TP-DP-PP"}) {
    EXPECT_FALSE(ParseGridOrder(text).has_value()) << text;
  }
}

TEST(RankGridTest, RanksAreDescribedByTheAxesInUse) {
  EXPECT_EQ(RankGrid(4, 1, 1).Describe(WorldRank(3)), "rank 3");
  EXPECT_EQ(RankGrid(2, 2, 1).Describe(WorldRank(3)), "rank 3 (pipeline rank 1, replica 1)");
  EXPECT_EQ(RankGrid(2, 2, 2).Describe(WorldRank(5)), "rank 5 (pipeline rank 1, replica 0, shard 1)");
}

}  // namespace
}  // namespace sluice
