#include "runtime/executor/message_slots.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace sluice {
namespace {

int64_t SlotBytes(const PipelineLayout& layout, Pool pool, size_t stage) {
  switch (pool) {
    case Pool::kInput:
      return layout.messages[(stage == 0 ? layout.messages.size() : stage) - 1].activation_bytes;
    case Pool::kOutput:
      return layout.messages[stage].activation_bytes;
    case Pool::kOutputGradient:
      return stage + 1 == layout.messages.size() ? 0 : layout.messages[stage + 1].gradient_bytes;
    case Pool::kInputGradient:
      return layout.messages[stage].gradient_bytes;
    default:
      return 0;  // stashes are the stage's own
  }
}

}  // namespace

absl::StatusOr<MessageSlots> MessageSlots::Create(Device* device, const PipelineLayout& layout, PipelineRank rank) {
  const Placement& placement = layout.programs[0]->placement;
  MessageSlots slots;
  slots.placement_ = placement;
  const int stages = placement.stages();
  slots.pools_.resize(static_cast<size_t>(stages) * placement.copies() * kPoolCount);
  for (int index = 0; index < stages * placement.copies(); ++index) {
    const int stage = index % stages, copy = index / stages;
    if (placement.RankOf(StageId(stage), copy) != rank) continue;
    for (Pool pool : {Pool::kInput, Pool::kOutput, Pool::kOutputGradient, Pool::kInputGradient}) {
      const int64_t bytes = SlotBytes(layout, pool, stage);
      int32_t count = 0;
      for (const Program* program : layout.programs)
        count = std::max(count, program->PoolSize(pool, StageId(stage), copy));
      if (bytes == 0) continue;
      std::vector<MessageSlot>& target =
          slots.pools_[static_cast<size_t>(index) * kPoolCount + static_cast<size_t>(pool)];
      target.resize(count);
      const std::string purpose = absl::StrCat(PoolName(pool), " slots of stage ", stage);
      for (MessageSlot& slot : target) {
        ASSIGN_OR_RETURN(slot.slot.buffer, device->Allocate(bytes, purpose));
      }
    }
  }
  if (layout.norm_bytes > 0) {
    ASSIGN_OR_RETURN(slots.norms_.slot.buffer, device->Allocate(layout.norm_bytes, "gradient norms of all ranks"));
    ASSIGN_OR_RETURN(slots.decision_.slot.buffer, device->Allocate(kDecisionBytes, "decision about a step"));
  }
  return slots;
}

MessageSlot& MessageSlots::At(Pool pool, StageId stage, int copy, int32_t slot) {
  std::vector<MessageSlot>& slots = pools_[placement_.Index(stage, copy) * kPoolCount + static_cast<size_t>(pool)];
  CHECK(slot >= 0 && static_cast<size_t>(slot) < slots.size())
      << "slot " << slot << " of " << slots.size() << " " << PoolName(pool) << " slots of stage " << stage;
  return slots[slot];
}

void MessageSlots::BeginStep() {
  for (std::vector<MessageSlot>& pool : pools_) {
    for (MessageSlot& slot : pool) slot.last_use = -1;
  }
}

}  // namespace sluice
