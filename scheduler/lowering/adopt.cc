// In place of pass 1, for a schedule that comes with its own transfers (a CSV): keeps their order, names the ranks at
// their other ends and sets the pools that hold messages to send; the slots pass lets the others grow as far as the
// list's order needs. Whether that order runs is the verifier's question.
#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "scheduler/lowering.h"

namespace sluice {

bool HasTransfers(const Schedule& schedule) {
  for (const auto& actions : schedule.ranks) {
    for (const Action& action : actions) {
      if (IsTransfer(action.kind)) return true;
    }
  }
  return false;
}

absl::StatusOr<Program> AdoptTransfers(const Schedule& schedule, const LoweringOptions& options) {
  const Placement& placement = schedule.placement;
  Program program{.name = schedule.name,
                  .pass = schedule.pass,
                  .micro_batches = schedule.micro_batches,
                  .replicas = options.replicas,
                  .placement = placement,
                  .ranks = schedule.ranks};
  program.pools.assign(static_cast<size_t>(placement.stages()) * placement.copies(), {});
  for (size_t r = 0; r < program.ranks.size(); ++r) {
    for (Action& a : program.ranks[r]) {
      if (!IsCompute(a.kind) && !IsTransfer(a.kind)) continue;
      if (a.micro_batch.value() >= schedule.micro_batches) {
        return absl::InvalidArgumentError(
            absl::StrCat("rank ", r, ": ", ToString(a), " has no action that computes its micro-batch"));
      }
      if (!IsTransfer(a.kind)) continue;
      const bool towards_last = a.kind == ActionKind::kSendForward || a.kind == ActionKind::kRecvBackward;
      const StageId other(a.stage.value() + (towards_last ? 1 : -1));
      if (other.value() < 0 || other.value() >= placement.stages()) {
        return absl::InvalidArgumentError(
            absl::StrCat("rank ", r, ": ", ToString(a), " has no stage ", other.value(), " to exchange with"));
      }
      a.peer = placement.RankOf(other, a.copy);
      const Pool sent = towards_last ? Pool::kOutput : Pool::kInputGradient;
      if (IsSend(a.kind)) {
        program.pools[placement.Index(a.stage, a.copy)][static_cast<size_t>(sent)] =
            std::min(options.send_slots, schedule.micro_batches);
      }
    }
  }
  return program;
}

}  // namespace sluice
