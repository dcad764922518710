// What a snapshot of a job's state consists of, rank by rank.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "base/event.h"
#include "base/ids.h"
#include "stages/parameters.h"

namespace sluice {

// Consecutive elements of a block of a complete tensor, counted row by row in the block.
struct StatePart {
  StateKind kind = StateKind::kParameter;
  std::string name;  // global
  int64_t complete_rows = 0;
  int64_t complete_columns = 0;
  Slice block;
  int64_t begin = 0;
  int64_t count = 0;
};

// Of one rank: what it has to save. The values of the parts stand one after another, from when `copied` is done until
// the next snapshot begins.
struct RankSnapshot {
  WorldRank rank;
  absl::Span<const StatePart> parts;
  const float* values = nullptr;
  EventRef copied;
};

// What is taken from a source of parameters.
enum class RestoredState : uint8_t {
  kParameters,  // m and v stay as they are
  kAll,
};

}  // namespace sluice
