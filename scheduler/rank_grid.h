// Where each world rank of a job stands: which place of its pipeline, which replica (data parallel), which shard (tensor
// parallel). Pure values.
//
// A program describes one pipeline. All replicas and shards run the same lists, so what is proven of one pipeline holds
// for the grid: a collective across replicas or shards stands at the same place in the list of each of its members, and
// the graph of what waits for what over all ranks maps onto that of one pipeline; a circle in it would be a circle there.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "base/ids.h"

namespace sluice {

enum class GridAxis : uint8_t { kTensor, kData, kPipeline };
// The axis along which neighbouring world ranks differ comes first.
using GridOrder = std::array<GridAxis, 3>;
// Shards talk most and stand nearest, pipeline stages talk least.
inline constexpr GridOrder kDefaultGridOrder = {GridAxis::kTensor, GridAxis::kData, GridAxis::kPipeline};

// "tp-dp-pp" and its permutations; nothing for anything else.
std::optional<GridOrder> ParseGridOrder(absl::string_view text);
std::string ToString(const GridOrder& order);

struct GridPlace {
  PipelineRank pipeline{0};
  int replica = 0;  // 0 ... dp-1
  int shard = 0;    // 0 ... tp-1
  friend bool operator==(const GridPlace&, const GridPlace&) = default;
};

class RankGrid {
 public:
  RankGrid() = default;  // one rank
  // REQUIRES: all at least 1; `order` a permutation.
  RankGrid(int pp, int dp, int tp, GridOrder order = kDefaultGridOrder);

  int pp() const { return Size(GridAxis::kPipeline); }
  int dp() const { return Size(GridAxis::kData); }
  int tp() const { return Size(GridAxis::kTensor); }
  int ranks() const { return pp() * dp() * tp(); }
  WorldRank RankOf(const GridPlace& place) const;
  GridPlace PlaceOf(WorldRank rank) const;
  // "rank 5", and where several axes are in use what it is: "rank 5 (pipeline rank 1, replica 0, shard 1)".
  std::string Describe(WorldRank rank) const;

  friend bool operator==(const RankGrid&, const RankGrid&) = default;

 private:
  int Size(GridAxis axis) const { return sizes_[static_cast<size_t>(axis)]; }

  std::array<int, 3> sizes_ = {1, 1, 1};  // by GridAxis
  GridOrder order_ = kDefaultGridOrder;
};

}  // namespace sluice
