// Schedules made of one building block (Qi et al. 2024, "Pipeline Parallelism with Controllable Memory"): where one
// micro-batch's passes lie on every rank, repeated for each micro-batch. What a chunk holds over the block's length is
// the memory of the whole schedule. Two stages per rank placed as a V: rank r holds stage a = r and stage b = 2p-1-r.
#pragma once

#include <vector>

#include "scheduler/schedule.h"

namespace sluice {

// Slots of one micro-batch's F and I on one rank; every pass takes one slot, and the next micro-batch's lie
// kBlockPeriod later. W's have none: they take the first slots that are left empty after their I.
struct BlockSlots {
  int forward_a, forward_b, input_b, input_a;
};
constexpr int kBlockPeriod = 6;

// The lists of all ranks. Warm-up and cool-down are drawn together as far as the block's own peak of memory allows.
// REQUIRES: each pass after its input's, the four of a rank different modulo the period.
std::vector<std::vector<Action>> RepeatBlock(const std::vector<BlockSlots>& blocks, int micro_batches);

}  // namespace sluice
