// Costs looked up by action: how long it takes and how large its message is, one table entry each.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "scheduler/action.h"
#include "scheduler/simulate.h"

namespace sluice {

class ActionCosts {
 public:
  explicit ActionCosts(const Costs& costs);

  // F, B, I, W; a message by itself: latency and bytes, latency alone if it is of no stage. 0 for everything else.
  int64_t Ns(const Action& action) const {
    const Entry* entry = At(action);
    if (entry != nullptr) return entry->ns;
    return IsTransfer(action.kind) ? latency_ns_ : 0;
  }
  // Of a stage's message; 0 for everything else.
  int64_t Bytes(const Action& action) const { return At(action) == nullptr ? 0 : At(action)->bytes; }

 private:
  static constexpr int kKinds = 8;  // F ... RECV_B
  struct Entry {
    int64_t ns = 0, bytes = 0;
  };
  static_assert(static_cast<int>(ActionKind::kRecvBackward) == kKinds - 1);

  const Entry* At(const Action& action) const {
    const auto kind = static_cast<size_t>(action.kind);
    return kind < kKinds ? &entries_[action.stage.index()][kind] : nullptr;
  }

  std::vector<std::array<Entry, kKinds>> entries_;  // per stage
  int64_t latency_ns_;
};

// What a member of a collective takes in, where all have equal shares; and how long that lasts once all are there.
int64_t CollectiveBytes(const Program& program, const Collective& collective, const Costs& costs);
int64_t CollectiveNs(int64_t bytes, const Costs& costs);

// A message by itself, between idle ranks.
int64_t TransferNs(int64_t bytes, const Costs& costs);

}  // namespace sluice
