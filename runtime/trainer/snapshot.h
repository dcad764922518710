// What a snapshot of a job's state consists of, rank by rank.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "base/event.h"
#include "base/ids.h"
#include "runtime/checkpoint/piece.h"

namespace sluice {

// Of one rank: what it has to save. The values of the pieces stand one after another, from when `copied` is done until
// the next snapshot begins.
struct RankSnapshot {
  WorldRank rank;
  absl::Span<const Piece> pieces;
  absl::Span<const float> values;
  EventRef copied;
};

// What is taken from a source of parameters.
enum class RestoredState : uint8_t {
  kParameters,  // m and v stay as they are
  kAll,
};

}  // namespace sluice
