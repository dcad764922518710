// Which accesses of one launch come before which. The simulator runs one CUDA thread at a time, so accesses have a
// time: the number of synchronisations so far. An access came before what a thread does now if a barrier of both lies
// in between: the block's, or their warp's. Blocks are never ordered, whatever the simulator's own order is.
//
// An access is kept as one 32-bit record: its time, the thread that made it (or a group, for reads), whether it was
// atomic.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/check.h"

namespace gpu_sim {

class Order {
 public:
  static constexpr int kThreads = 1024;
  static constexpr int kLanes = 32;
  static constexpr uint32_t kFirstTime = 1, kTimeMax = (1u << 20) - 1;

  // Who made an access: a thread of the block, or, of reads, several of a warp, of the block, or of several blocks.
  static constexpr uint32_t kSeveralOfWarp = kThreads;  // + the warp
  static constexpr uint32_t kSeveralOfBlock = kSeveralOfWarp + kThreads / kLanes;
  static constexpr uint32_t kSeveralBlocks = kSeveralOfBlock + 1;

  static constexpr uint32_t Record(uint32_t time, uint32_t who, bool atomic) { return time << 12 | who << 1 | atomic; }
  static constexpr uint32_t TimeOf(uint32_t record) { return record >> 12; }
  static constexpr uint32_t WhoOf(uint32_t record) { return record >> 1 & 0x7ff; }
  static constexpr bool IsAtomic(uint32_t record) { return record & 1; }

  uint32_t now() const { return now_; }
  uint32_t launch_start() const { return launch_start_; }
  uint32_t block_start() const { return block_start_; }
  // Restart it before the next launch or block.
  bool IsLate() const { return now_ > kTimeMax / 2; }

  // Time starts anew. REQUIRES: no record is kept but, as of other blocks, those of kFirstTime, which StartLaunch
  // follows.
  void Restart() { now_ = kFirstTime - 1; }
  void StartLaunch() { launch_start_ = Tick(); }
  void StartBlock();
  void BlockBarrier() { barrier_ = Tick(); }
  void WarpBarrier(int warp, uint32_t lanes);

  // May the access of this record happen at the same time as what thread `me` does now? Of accesses before the time
  // `since` (the launch's start, or in shared memory the block's) nothing is asked.
  bool IsUnordered(uint32_t record, uint32_t me, uint32_t since) const {
    const uint32_t time = TimeOf(record), who = WhoOf(record);
    if (time < since) return false;
    if (time < block_start_ || who == kSeveralBlocks) return true;
    if (time < barrier_ || who == me) return false;
    if (who < kThreads) return who / kLanes != me / kLanes || time >= SeenBy(me, who);
    return who != kSeveralOfWarp + me / kLanes || time >= warps_[me / kLanes].all;
  }
  // The record of those that have read, after another read now by thread `me`.
  uint32_t AfterRead(uint32_t record, uint32_t me, uint32_t since) const;

 private:
  struct Warp {
    uint32_t all = 0;                                       // time of its last barrier of all lanes
    bool partial = false;                                   // there were barriers of some lanes: `seen` counts
    std::array<std::array<uint32_t, kLanes>, kLanes> seen;  // [lane][other]: other's accesses before came before
  };
  uint32_t SeenBy(uint32_t me, uint32_t other) const {
    const Warp& warp = warps_[me / kLanes];
    return warp.partial ? std::max(warp.all, warp.seen[me % kLanes][other % kLanes]) : warp.all;
  }

  uint32_t Tick() {
    CHECK_LT(now_, kTimeMax) << "barriers in one block of a kernel on the simulated GPU";
    return ++now_;
  }

  uint32_t now_ = kFirstTime - 1;
  uint32_t launch_start_ = 0, block_start_ = 0;
  uint32_t barrier_ = 0;  // the block's last
  std::array<Warp, kThreads / kLanes> warps_;
};

}  // namespace gpu_sim
