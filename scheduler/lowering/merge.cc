// An optional pass before all others: an I and the W of the same stage and micro-batch right behind it become one B.
#include "scheduler/lowering.h"

namespace sluice {

Schedule MergeBackward(Schedule schedule) {
  for (auto& actions : schedule.ranks) {
    size_t kept = 0;
    for (const Action& a : actions) {
      Action* before = kept > 0 ? &actions[kept - 1] : nullptr;
      if (before != nullptr && before->kind == ActionKind::kInputGradient && a.kind == ActionKind::kWeightGradient &&
          before->stage == a.stage && before->copy == a.copy && before->micro_batch == a.micro_batch) {
        before->kind = ActionKind::kBackward;
        continue;
      }
      actions[kept++] = a;
    }
    actions.resize(kept);
  }
  return schedule;
}

}  // namespace sluice
