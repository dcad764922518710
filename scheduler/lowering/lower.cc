#include "base/status.h"
#include "scheduler/lowering.h"

namespace sluice {

namespace {

absl::StatusOr<Program> LowerPostValidated(const Schedule& schedule, const LoweringOptions& options) {
  RETURN_IF_ERROR(CheckPostValidation(schedule, options));
  ASSIGN_OR_RETURN(Program program, AddTransfers(InsertPostValidation(schedule), options));
  program.validation = Validation::kGuessRight;
  AddPostValidatedEnd(program);
  AssignQueues(options.queues, program);
  BindSlots(program);
  return program;
}

}  // namespace

absl::StatusOr<Program> Lower(const Schedule& schedule, const LoweringOptions& options) {
  if (options.norm_check == NormCheck::kPostValidation && schedule.pass == PassKind::kTraining) {
    return LowerPostValidated(schedule, options);
  }
  ASSIGN_OR_RETURN(Program program,
                   HasTransfers(schedule) ? AdoptTransfers(schedule, options) : AddTransfers(schedule, options));
  AddReductions(program);
  AddEndOfStep(options, program);
  AssignQueues(options.queues, program);
  BindSlots(program);
  return program;
}

}  // namespace sluice
