// V-Half and V-Min (Qi et al. 2024, "Pipeline Parallelism with Controllable Memory"): two stages per rank placed as a
// V, the backward pass split, and a building block whose passes lie so close that a rank holds about a half (p+2) div
// 2, or a third (p+4) div 3, of 1F1B's memory in whole micro-batches. What it costs is bubble: a half or two thirds of
// 1F1B's. Times don't matter to the construction, but V-Min loses to 1F1B where stages or passes differ.
#include "base/status.h"
#include "scheduler/generators/building_block.h"
#include "scheduler/generators/common.h"

namespace sluice {
namespace {

template <class BlockOf>
absl::StatusOr<Schedule> GenerateFromBlock(const char* name, const GeneratorParams& params, BlockOf block_of) {
  RETURN_IF_ERROR(CheckParams(name, params, 2));
  std::vector<BlockSlots> blocks;
  for (int r = 0; r < params.ranks; ++r) blocks.push_back(block_of(r));
  Schedule schedule = EmptySchedule(name, Placement::V(params.ranks), params.micro_batches);
  schedule.ranks = RepeatBlock(blocks, params.micro_batches);
  return schedule;
}

}  // namespace

absl::StatusOr<Schedule> GenerateVHalf(const GeneratorParams& params) {
  const int p = params.ranks, gap = p % 2 == 0 ? 3 : 0;  // else slots would meet
  return GenerateFromBlock("v_half", params, [=](int r) {
    return BlockSlots{2 * r, 3 * p - 2 - r, 3 * p + gap + 2 * r - 1, 6 * p + gap - 2 - r};
  });
}

absl::StatusOr<Schedule> GenerateVMin(const GeneratorParams& params) {
  const int p = params.ranks, gap = p % 3 == 0 ? 2 : 0;  // else slots would meet
  return GenerateFromBlock("v_min", params, [=](int r) {
    return BlockSlots{r, 2 * p - 1 - r, 2 * p + gap + r, 4 * p + gap - 1 - r};
  });
}

}  // namespace sluice
