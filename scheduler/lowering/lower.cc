#include "base/status.h"
#include "scheduler/lowering.h"

namespace sluice {

absl::StatusOr<Program> Lower(const Schedule& schedule, const LoweringOptions& options) {
  ASSIGN_OR_RETURN(Program program,
                   HasTransfers(schedule) ? AdoptTransfers(schedule, options) : AddTransfers(schedule, options));
  AddEndOfStep(options.tied_tensors, program);
  AssignQueues(options.queues, program);
  BindSlots(program);
  return program;
}

}  // namespace sluice
