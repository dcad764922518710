// Strong integer ids. Ranks, stages and micro-batches count different things and do not convert into one another.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>

namespace sluice {

template <class Tag>
class Id {
 public:
  constexpr Id() = default;
  constexpr explicit Id(int64_t value) : value_(static_cast<int32_t>(value)) {}
  constexpr int32_t value() const { return value_; }
  constexpr size_t index() const { return static_cast<size_t>(value_); }
  constexpr bool valid() const { return value_ >= 0; }
  friend constexpr auto operator<=>(Id, Id) = default;
  friend std::ostream& operator<<(std::ostream& out, Id id) { return out << id.value_; }

 private:
  int32_t value_ = -1;
};

// One worker is one device: its number in the whole job.
using WorldRank = Id<struct WorldRankTag>;
// A worker's place along its pipeline, 0 ... p-1.
using PipelineRank = Id<struct PipelineRankTag>;
// One of the p*v consecutive pieces of the layer graph.
using StageId = Id<struct StageTag>;
// One of the m micro-batches of a step that a pipeline works on.
using MicroBatch = Id<struct MicroBatchTag>;
// An in-order lane on one rank: a compute lane, or a communication lane whose id both ends of a transfer share.
using QueueId = Id<struct QueueTag>;

}  // namespace sluice

template <class Tag>
struct std::hash<sluice::Id<Tag>> {
  size_t operator()(sluice::Id<Tag> id) const noexcept { return std::hash<int32_t>()(id.value()); }
};
