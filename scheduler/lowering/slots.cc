// Pass 4. Walks each rank's list and gives out slots; the one that has been free for longest comes first, so that a
// writer seldom waits for the last user. A pool that is too small for the list's order grows.

#include <deque>

#include "base/check.h"
#include "scheduler/lowering.h"

namespace sluice {
namespace {

// The free slots of one pool, and which micro-batch holds which slot.
class PoolState {
 public:
  PoolState(int32_t& size, int micro_batches) : size_(size), slot_of_(micro_batches, -1) {
    for (int32_t slot = 0; slot < size; ++slot) free_.push_back(slot);
  }

  int32_t Take(MicroBatch i) {
    if (free_.empty()) free_.push_back(size_++);
    const int32_t slot = free_.front();
    free_.pop_front();
    return slot_of_[i.index()] = slot;
  }
  void Free(MicroBatch i) {
    const int32_t slot = std::exchange(slot_of_[i.index()], -1);
    if (slot >= 0) free_.push_back(slot);
  }
  int32_t Of(MicroBatch i) const { return slot_of_[i.index()]; }

 private:
  int32_t& size_;
  std::deque<int32_t> free_;
  std::vector<int32_t> slot_of_;
};

class SlotPass {
 public:
  explicit SlotPass(Program& program) : program_(program) {
    pools_.reserve(program.pools.size() * kPoolCount);
    for (PoolSizes& sizes : program.pools) {
      for (int32_t& size : sizes) pools_.emplace_back(size, program.micro_batches);
    }
  }

  void Bind(Action& a) {
    const bool training = program_.pass == PassKind::kTraining;
    switch (a.kind) {
      case ActionKind::kForward:
        if (const auto next = program_.path().Next(a.stage, a.micro_batch)) {
          a.slot = TakeTarget(a, *next, Pool::kInput, Pool::kOutput);
        }
        a.stash = Of(Pool::kStash, a).Take(a.micro_batch);
        if (!training) FreeAll(a, {Pool::kInput, Pool::kStash});
        break;
      case ActionKind::kBackward:
      case ActionKind::kInputGradient:
        if (a.stage.value() > 0) {
          const StageItem previous{StageId(a.stage.value() - 1), a.micro_batch};
          a.slot = TakeTarget(a, previous, Pool::kOutputGradient, Pool::kInputGradient);
        }
        a.stash = Of(Pool::kGradientStash, a).Take(a.micro_batch);
        if (a.kind == ActionKind::kInputGradient) break;
        [[fallthrough]];
      case ActionKind::kWeightGradient:
        FreeAll(a, {Pool::kInput, Pool::kOutputGradient, Pool::kStash, Pool::kGradientStash});
        break;
      case ActionKind::kRecvForward:
        a.slot = Of(Pool::kInput, a).Take(a.micro_batch);
        break;
      case ActionKind::kRecvBackward:
        a.slot = Of(Pool::kOutputGradient, a).Take(a.micro_batch);
        break;
      case ActionKind::kSendForward:
        a.slot = Send(Of(Pool::kOutput, a), a.micro_batch);
        break;
      case ActionKind::kSendBackward:
        a.slot = Send(Of(Pool::kInputGradient, a), a.micro_batch);
        break;
      default:
        break;
    }
  }

 private:
  PoolState& Of(Pool pool, StageId stage, int copy) {
    return pools_[program_.placement.Index(stage, copy) * kPoolCount + static_cast<size_t>(pool)];
  }
  PoolState& Of(Pool pool, const Action& a) { return Of(pool, a.stage, a.copy); }

  // The slot that a compute action writes: its neighbour's own if that stands on the same rank, else one to send.
  int32_t TakeTarget(const Action& a, const StageItem& neighbour, Pool neighbours, Pool own) {
    const Placement& placement = program_.placement;
    const bool local = placement.RankOf(neighbour.stage, a.copy) == placement.RankOf(a.stage, a.copy);
    return local ? Of(neighbours, neighbour.stage, a.copy).Take(neighbour.micro_batch) : Of(own, a).Take(a.micro_batch);
  }
  static int32_t Send(PoolState& pool, MicroBatch i) {
    const int32_t slot = pool.Of(i);
    pool.Free(i);
    return slot;
  }
  void FreeAll(const Action& a, std::initializer_list<Pool> pools) {
    for (Pool pool : pools) Of(pool, a).Free(a.micro_batch);
  }

  Program& program_;
  std::vector<PoolState> pools_;
};

}  // namespace

void BindSlots(Program& program) {
  CHECK_EQ(program.pools.size(), static_cast<size_t>(program.placement.stages()) * program.placement.copies());
  SlotPass pass(program);
  for (auto& actions : program.ranks) {
    for (Action& action : actions) pass.Bind(action);
  }
}

}  // namespace sluice
