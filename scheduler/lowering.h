// From a schedule to a program, in separate pure passes. Each can be called and tested alone; Lower runs them all.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/program.h"
#include "scheduler/schedule.h"

namespace sluice {

enum class QueuePolicy : uint8_t {
  kOnePerRank,       // compute and communication of a rank in one lane
  kOneCommPerRank,   // one lane for all communication of a rank
  kOnePerDirection,  // one lane up (to higher ranks), one down, one for collectives
  kOnePerEdge,       // one lane per directed pair of ranks, one for collectives
};

// A tensor that several stages use, e.g. an embedding tied to the head.
struct TiedTensor {
  int tensor = 0;  // the caller's id, comes back in Collective::tensor
  std::vector<StageId> stages;
};

enum class NormCheck : uint8_t {
  kBarrier,         // every rank waits for the norms of all before its OPTIMIZER_STEP
  kPostValidation,  // it steps as if nothing were clipped, and finds out in the next step whether that was right
};

struct LoweringOptions {
  QueuePolicy queues = QueuePolicy::kOnePerDirection;
  int replicas = 1;       // dp (Program::replicas)
  int send_slots = 2;     // OUTPUT and INPUT_GRADIENT slots of a stage: results that may wait to be sent
  int receive_ahead = 1;  // slots beyond those in flight: messages that may arrive before their stage can use them
  // ZeRO-1, where a stage has several holders (copies, replicas): each updates its slice of the parameters, which are
  // gathered afterwards; else the summed gradients are gathered before, and each updates all.
  bool zero1 = false;
  std::vector<TiedTensor> tied_tensors;
  NormCheck norm_check = NormCheck::kBarrier;
};

// All passes; the schedule's own transfers are kept if it has any. REQUIRES: no budget negative, send_slots >= 1,
// replicas >= 1.
// Errors: INVALID_ARGUMENT if the schedule's own order cannot run (an action waits for one that comes later), naming
// the actions at which the ranks stand; and for a schedule that can't be post-validated, with the rule.
absl::StatusOr<Program> Lower(const Schedule& schedule, const LoweringOptions& options = {});

// Before all others, if wanted: an I with its own W right behind it becomes a B.
Schedule MergeBackward(Schedule schedule);

// Before all others, where parameters are sharded: UNSHARD of a stage before it is used and RESHARD when it makes room,
// looking ahead so that the next `active_stages` stages that the rank computes on are there. At the end all are
// sharded. REQUIRES: active_stages >= 2, as an OVERLAP_F_B pair needs.
Schedule AddUnsharding(Schedule schedule, int active_stages = 3);

// Pass 1, explicit transfers: adds a SEND and a RECV between adjacent stages of different ranks, and sets
// Program::pools. The lists are cut from one global order in which each SEND stands beside its RECV and every action
// after all that it waits for, slots included: therefore no queue assignment can make it deadlock.
absl::StatusOr<Program> AddTransfers(const Schedule& schedule, const LoweringOptions& options);

// In place of pass 1, for a schedule that has transfers already: keeps their order, sets peers and pools. Errors:
// INVALID_ARGUMENT for a transfer that has no stage at its other end, or a micro-batch that nobody computes.
absl::StatusOr<Program> AdoptTransfers(const Schedule& schedule, const LoweringOptions& options);
bool HasTransfers(const Schedule& schedule);

// After pass 1, where the model has several copies or replicas (training only): REDUCE_GRAD of every stage and copy,
// right after the last weight gradient of the stage in any copy; those that the lists have already stay where they are.
void AddReductions(Program& program);

// Pass 2, end of step (training only): tied gradients, norm, optimizer step, after each rank's last compute; and what a
// stage's holders gather before or after the optimizer step.
void AddEndOfStep(const LoweringOptions& options, Program& program);

// --- Post-validation of the gradient norm (scheduler/README.md) ---

// Before pass 1: puts POST_VALIDATION into each rank's list, after the forward passes that may run before it is known
// whether the step before was right: min(2(p-1-r), m-1) of its first stage, fewer if something else comes first.
Schedule InsertPostValidation(Schedule schedule);

// INVALID_ARGUMENT with the rule where the ranks would have to wait for each other at the end of a step all the same:
// several copies of the model, a tied tensor on several ranks; UNIMPLEMENTED for a schedule with its own transfers.
absl::Status CheckPostValidation(const Schedule& schedule, const LoweringOptions& options);

// In place of pass 2: NORM and the vector's way up the ranks, then the optimizer step. No rank waits for a later one.
void AddPostValidatedEnd(Program& program);

// The lists beside that of a step whose predecessor was guessed right, made from it after all passes.
struct PostValidationPrograms {
  Program first_step;   // nothing to validate
  Program guess_wrong;  // takes in what ranks have sent before they knew, and then does the whole step again
  Program settle;       // validates the last step, and nothing else
};
// REQUIRES: `guess_right` was lowered with NormCheck::kPostValidation.
PostValidationPrograms DerivePostValidation(const Program& guess_right);

// Pass 3, queues: sets Program::queues and Action::queue.
void AssignQueues(QueuePolicy policy, Program& program);

// Pass 4, slots: sets Action::slot and Action::stash in list order, the slot that has been free for longest first.
void BindSlots(Program& program);

}  // namespace sluice
