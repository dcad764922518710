// The construction: repeat the block; W's into the first empty slots; draw warm-up and cool-down together; squeeze; the
// I's of the cool-down once more without the W's in their way; W's anew. The steady state, from rank 0's first I(a) to
// its last F(a), stays as the block has it.
#include "scheduler/generators/building_block.h"

#include <algorithm>
#include <array>
#include <deque>
#include <utility>

#include "base/check.h"

namespace sluice {
namespace {

enum Pass : int8_t { kForwardA, kForwardB, kInputB, kInputA, kWeightB, kWeightA, kEmpty };

bool IsForward(Pass pass) { return pass == kForwardA || pass == kForwardB; }
bool IsInput(Pass pass) { return pass == kInputA || pass == kInputB; }
bool IsWeight(Pass pass) { return pass == kWeightA || pass == kWeightB; }

struct Cell {
  Pass pass = kEmpty;
  int micro_batch = 0;
};

// What one rank does in each slot.
struct RankSlots {
  std::vector<Cell> cells;
  std::array<std::vector<int>, kEmpty> slot_of;  // [pass][micro-batch], the same the other way round
  std::vector<int> held;                         // chunks after each slot
  std::vector<int> pending;                      // W's that wait for a slot, after each slot

  int end() const { return static_cast<int>(cells.size()); }
  bool Empty(int slot) const { return slot >= end() || cells[slot].pass == kEmpty; }
  void Put(int slot, Cell cell) {
    if (slot >= end()) cells.resize(slot + 1);
    CHECK(cells[slot].pass == kEmpty) << "slot " << slot << " is taken";
    cells[slot] = cell;
    slot_of[cell.pass][cell.micro_batch] = slot;
  }
  void Move(int from, int to) { Put(to, std::exchange(cells[from], Cell{})); }

  // Each W into the first empty slot after its I and after the W's before it.
  void PutWeights() {
    std::deque<Cell> inputs;
    for (int slot = 0; slot < end() || !inputs.empty(); ++slot) {
      if (!Empty(slot)) {
        if (IsInput(cells[slot].pass)) inputs.push_back(cells[slot]);
      } else if (!inputs.empty()) {
        Put(slot, {inputs.front().pass == kInputA ? kWeightA : kWeightB, inputs.front().micro_batch});
        inputs.pop_front();
      }
    }
  }
  void DropWeights() {
    for (Cell& cell : cells) {
      if (IsWeight(cell.pass)) cell = {};
    }
  }

  // Counts what is held, with the W's in their slots.
  int PeakHeld() {
    held.assign(end(), 0);
    int now = 0, peak = 0;
    for (int slot = 0; slot < end(); ++slot) {
      now += IsForward(cells[slot].pass) ? 1 : IsWeight(cells[slot].pass) ? -1 : 0;
      held[slot] = now;
      peak = std::max(peak, now);
    }
    return peak;
  }
  // The same without W's in the slots, as if they were put: of what has changed in slots [begin, end). Beyond those it
  // goes on until the counts are again what they were.
  int PeakHeldWithWeights(int begin, int end_of_change) {
    held.resize(end());
    pending.resize(end());
    int now = begin == 0 ? 0 : held[begin - 1], wait = begin == 0 ? 0 : pending[begin - 1], peak = now;
    for (int slot = begin; slot < end(); ++slot) {
      if (IsForward(cells[slot].pass)) ++now;
      if (IsInput(cells[slot].pass)) ++wait;
      if (Empty(slot) && wait > 0) --wait, --now;
      if (slot >= end_of_change && held[slot] == now && pending[slot] == wait) break;
      held[slot] = now;
      pending[slot] = wait;
      peak = std::max(peak, now);
    }
    return peak;
  }
};

class Construction {
 public:
  Construction(const std::vector<BlockSlots>& blocks, int micro_batches)
      : p_(static_cast<int>(blocks.size())), m_(micro_batches), ranks_(blocks.size()) {
    for (int r = 0; r < p_; ++r) {
      for (std::vector<int>& slots : ranks_[r].slot_of) slots.resize(m_);
      const std::array<int, 4> first = {blocks[r].forward_a, blocks[r].forward_b, blocks[r].input_b, blocks[r].input_a};
      for (int pass = kForwardA; pass <= kInputA; ++pass) {
        for (int i = 0; i < m_; ++i) ranks_[r].Put(first[pass] + kBlockPeriod * i, {static_cast<Pass>(pass), i});
      }
    }
  }

  std::vector<std::vector<Action>> Run() {
    for (RankSlots& rank : ranks_) {
      rank.PutWeights();
      cap_ = std::max(cap_, rank.PeakHeld());
    }
    DrawTogether();
    Squeeze();
    for (RankSlots& rank : ranks_) rank.DropWeights();
    DrawInputsTogether();
    for (RankSlots& rank : ranks_) rank.PutWeights();
    return Lists();
  }

 private:
  int steady_begin() const { return ranks_[0].slot_of[kInputA].front(); }
  int steady_end() const { return ranks_[0].slot_of[kForwardA].back(); }
  int end() const {
    int end = 0;
    for (const RankSlots& rank : ranks_) end = std::max(end, rank.end());
    return end;
  }

  // Slot of the pass that a pass takes its input from; -1: it takes none.
  int InputSlot(int r, Cell cell) const {
    const auto slot = [&](int rank, Pass pass) { return ranks_[rank].slot_of[pass][cell.micro_batch]; };
    switch (cell.pass) {
      case kForwardA:
        return r == 0 ? -1 : slot(r - 1, kForwardA);
      case kForwardB:
        return r == p_ - 1 ? slot(r, kForwardA) : slot(r + 1, kForwardB);
      case kInputB:
        return r == 0 ? slot(r, kForwardB) : slot(r - 1, kInputB);
      case kInputA:
        return r == p_ - 1 ? slot(r, kInputB) : slot(r + 1, kInputA);
      default:
        return slot(r, cell.pass == kWeightA ? kInputA : kInputB);
    }
  }
  // First slot after a pass's input and after its like of the micro-batch before.
  int Earliest(int r, Cell cell) const {
    const int before = cell.micro_batch == 0 ? -1 : ranks_[r].slot_of[cell.pass][cell.micro_batch - 1];
    return std::max(InputSlot(r, cell), before) + 1;
  }

  // All passes outside the steady state, in the order of their slots, to the first slot that is free and where the rank
  // holds no more than the cap.
  void DrawTogether() {
    const int steady_first = steady_begin(), steady_last = steady_end();
    for (int slot = 0, last = end(); slot < last; ++slot) {
      if (steady_first <= slot && slot <= steady_last) continue;
      for (int r = 0; r < p_; ++r) {
        if (!ranks_[r].Empty(slot)) Draw(ranks_[r], slot, Earliest(r, ranks_[r].cells[slot]));
      }
    }
  }
  void Draw(RankSlots& rank, int slot, int earliest) {
    const Pass pass = rank.cells[slot].pass;
    int to = slot;
    for (int x = slot - 1; x >= earliest && (!IsForward(pass) || rank.held[x] < cap_); --x) {
      if (rank.Empty(x)) to = x;
    }
    if (to == slot) return;
    rank.Move(slot, to);
    const int change = IsForward(pass) ? 1 : IsWeight(pass) ? -1 : 0;
    for (int x = to; x < slot; ++x) rank.held[x] += change;
  }

  // The I's after the steady state to the first empty slot, unless the W's would then come too late for the cap.
  void DrawInputsTogether() {
    const int steady_last = steady_end();
    for (RankSlots& rank : ranks_) rank.PeakHeldWithWeights(0, rank.end());
    for (int slot = steady_last + 1, last = end(); slot < last; ++slot) {
      for (int r = 0; r < p_; ++r) {
        RankSlots& rank = ranks_[r];
        if (rank.Empty(slot) || !IsInput(rank.cells[slot].pass)) continue;
        int to = Earliest(r, rank.cells[slot]);
        while (!rank.Empty(to)) ++to;
        if (to >= slot) continue;
        rank.Move(slot, to);
        if (rank.PeakHeldWithWeights(to, slot + 1) <= cap_) continue;
        rank.Move(to, slot);
        rank.PeakHeldWithWeights(to, slot + 1);
      }
    }
  }

  // The same orders, each pass as early as it can then begin.
  void Squeeze() {
    std::vector<RankSlots> squeezed(p_);
    for (RankSlots& rank : squeezed) {
      for (std::vector<int>& slots : rank.slot_of) slots.resize(m_);
    }
    ranks_.swap(squeezed);  // InputSlot now reads the new slots, which exist for all earlier passes
    for (int slot = 0, more = 1; more > 0; ++slot) {
      more = 0;
      for (int r = 0; r < p_; ++r) {
        if (slot >= squeezed[r].end()) continue;
        ++more;
        const Cell cell = squeezed[r].cells[slot];
        if (cell.pass != kEmpty) ranks_[r].Put(std::max(ranks_[r].end(), InputSlot(r, cell) + 1), cell);
      }
    }
  }

  std::vector<std::vector<Action>> Lists() const {
    std::vector<std::vector<Action>> lists(p_);
    for (int r = 0; r < p_; ++r) {
      for (const Cell& cell : ranks_[r].cells) {
        const bool a = cell.pass == kForwardA || cell.pass == kInputA || cell.pass == kWeightA;
        const StageId stage(a ? r : 2 * p_ - 1 - r);
        const MicroBatch micro_batch(cell.micro_batch);
        if (IsForward(cell.pass)) lists[r].push_back(Forward(stage, micro_batch));
        if (IsInput(cell.pass)) lists[r].push_back(InputGradient(stage, micro_batch));
        if (IsWeight(cell.pass)) lists[r].push_back(WeightGradient(stage, micro_batch));
      }
    }
    return lists;
  }

  const int p_, m_;
  int cap_ = 0;
  std::vector<RankSlots> ranks_;
};

}  // namespace

std::vector<std::vector<Action>> RepeatBlock(const std::vector<BlockSlots>& blocks, int micro_batches) {
  return Construction(blocks, micro_batches).Run();
}

}  // namespace sluice
