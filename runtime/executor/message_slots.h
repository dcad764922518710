// The message slots of one rank: allocated once for all its programs, and who used each last.
// Threads: the rank's issuing thread.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "kernels/transport.h"
#include "runtime/executor/links.h"
#include "scheduler/program.h"

namespace sluice {

// A slot, and the place in the rank's list of the action that used it last: the compute action that read it, or the
// SEND that emptied it. -1: nobody in this step.
struct MessageSlot {
  Slot slot;
  int32_t last_use = -1;
};

class MessageSlots {
 public:
  // As many of each pool as any program wants. RESOURCE_EXHAUSTED as Device::Allocate.
  static absl::StatusOr<MessageSlots> Create(Device* device, const PipelineLayout& layout, PipelineRank rank);

  // REQUIRES: the rank holds the stage, and the pool has that slot.
  MessageSlot& At(Pool pool, StageId stage, int copy, int32_t slot);
  // Post-validation: the squared norms of all ranks, and what was decided from them. Absent where no program has it.
  MessageSlot& norms() { return norms_; }
  MessageSlot& decision() { return decision_; }
  // Forgets who used what: all of it has ended.
  void BeginStep();

 private:
  MessageSlot norms_, decision_;
  Placement placement_;
  // [Placement::Index * kPoolCount + pool]; empty where the rank has none
  std::vector<std::vector<MessageSlot>> pools_;
};

}  // namespace sluice
