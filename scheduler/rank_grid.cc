#include "scheduler/rank_grid.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"

namespace sluice {
namespace {

constexpr std::array<absl::string_view, 3> kAxisNames = {"tp", "dp", "pp"};  // by GridAxis

}  // namespace

std::string ToString(const GridOrder& order) {
  return absl::StrJoin(order, "-", [](std::string* out, GridAxis axis) {
    absl::StrAppend(out, kAxisNames[static_cast<size_t>(axis)]);
  });
}

std::optional<GridOrder> ParseGridOrder(absl::string_view text) {
  GridOrder order = kDefaultGridOrder;
  do {
    if (ToString(order) == text) return order;
  } while (std::next_permutation(order.begin(), order.end()));
  return std::nullopt;
}

RankGrid::RankGrid(int pp, int dp, int tp, GridOrder order) : sizes_{tp, dp, pp}, order_(order) {
  CHECK(pp >= 1 && dp >= 1 && tp >= 1) << pp << " x " << dp << " x " << tp;
}

WorldRank RankGrid::RankOf(const GridPlace& place) const {
  const std::array<int, 3> at = {place.shard, place.replica, place.pipeline.value()};
  int rank = 0;
  for (size_t i = order_.size(); i-- > 0;) {
    const auto axis = static_cast<size_t>(order_[i]);
    CHECK(at[axis] >= 0 && at[axis] < sizes_[axis]) << kAxisNames[axis] << " " << at[axis] << " of " << sizes_[axis];
    rank = rank * sizes_[axis] + at[axis];
  }
  return WorldRank(rank);
}

GridPlace RankGrid::PlaceOf(WorldRank rank) const {
  CHECK(rank.valid() && rank.value() < ranks()) << "rank " << rank << " of " << ranks();
  std::array<int, 3> at{};
  int rest = rank.value();
  for (const GridAxis axis : order_) {
    at[static_cast<size_t>(axis)] = rest % Size(axis);
    rest /= Size(axis);
  }
  return {.pipeline = PipelineRank(at[2]), .replica = at[1], .shard = at[0]};
}

std::string RankGrid::Describe(WorldRank rank) const {
  const GridPlace place = PlaceOf(rank);
  std::string text = absl::StrCat("rank ", rank.value());
  if (dp() == 1 && tp() == 1) return text;
  absl::StrAppend(&text, " (pipeline rank ", place.pipeline.value());
  if (dp() > 1) absl::StrAppend(&text, ", replica ", place.replica);
  if (tp() > 1) absl::StrAppend(&text, ", shard ", place.shard);
  return absl::StrCat(text, ")");
}

}  // namespace sluice
