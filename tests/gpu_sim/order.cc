#include "tests/gpu_sim/order.h"

#include <bit>

namespace gpu_sim {

void Order::StartBlock() {
  block_start_ = barrier_ = Tick();
  for (Warp& warp : warps_) {
    warp.all = 0;
    warp.partial = false;
  }
}

void Order::WarpBarrier(int number, uint32_t lanes) {
  Warp& warp = warps_[number];
  Tick();
  if (lanes == ~0u) {
    warp.all = now_;
    return;
  }
  if (!warp.partial) warp.seen = {};
  warp.partial = true;
  // What one of them has seen, all have.
  std::array<uint32_t, kLanes> seen{};
  for (uint32_t left = lanes; left != 0; left &= left - 1) {
    const auto& of_lane = warp.seen[std::countr_zero(left)];
    for (int other = 0; other < kLanes; ++other) seen[other] = std::max(seen[other], of_lane[other]);
  }
  for (uint32_t left = lanes; left != 0; left &= left - 1) seen[std::countr_zero(left)] = now_;
  for (uint32_t left = lanes; left != 0; left &= left - 1) warp.seen[std::countr_zero(left)] = seen;
}

uint32_t Order::AfterRead(uint32_t record, uint32_t me, uint32_t since) const {
  const uint32_t time = TimeOf(record), who = WhoOf(record);
  if (time >= since) {
    if (who == kSeveralBlocks) return record;
    if (time < block_start_) return Record(now_, kSeveralBlocks, false);
    if (IsUnordered(record, me, since)) {
      const bool same_warp = who < kThreads ? who / kLanes == me / kLanes : who == kSeveralOfWarp + me / kLanes;
      return Record(now_, same_warp ? kSeveralOfWarp + me / kLanes : kSeveralOfBlock, false);
    }
  }
  return Record(now_, me, false);
}

}  // namespace gpu_sim
