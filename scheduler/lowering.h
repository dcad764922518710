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

struct LoweringOptions {
  QueuePolicy queues = QueuePolicy::kOnePerDirection;
  int send_slots = 2;     // OUTPUT and INPUT_GRADIENT slots of a stage: results that may wait to be sent
  int receive_ahead = 1;  // slots beyond those in flight: messages that may arrive before their stage can use them
  std::vector<TiedTensor> tied_tensors;
};

// All passes; the schedule's own transfers are kept if it has any. REQUIRES: no budget negative, send_slots >= 1.
// Errors: INVALID_ARGUMENT if the schedule's own order cannot run (an action waits for one that comes later), naming
// the actions at which the ranks stand.
absl::StatusOr<Program> Lower(const Schedule& schedule, const LoweringOptions& options = {});

// Before all others, if wanted: an I with its own W right behind it becomes a B.
Schedule MergeBackward(Schedule schedule);

// Pass 1, explicit transfers: adds a SEND and a RECV between adjacent stages of different ranks, and sets
// Program::pools. The lists are cut from one global order in which each SEND stands beside its RECV and every action
// after all that it waits for, slots included: therefore no queue assignment can make it deadlock.
absl::StatusOr<Program> AddTransfers(const Schedule& schedule, const LoweringOptions& options);

// In place of pass 1, for a schedule that has transfers already: keeps their order, sets peers and pools. Errors:
// INVALID_ARGUMENT for a transfer that has no stage at its other end, or a micro-batch that nobody computes.
absl::StatusOr<Program> AdoptTransfers(const Schedule& schedule, const LoweringOptions& options);
bool HasTransfers(const Schedule& schedule);

// Pass 2, end of step (training only): tied gradients, norm, optimizer step, after each rank's last compute.
void AddEndOfStep(const std::vector<TiedTensor>& tied_tensors, Program& program);

// Pass 3, queues: sets Program::queues and Action::queue.
void AssignQueues(QueuePolicy policy, Program& program);

// Pass 4, slots: sets Action::slot and Action::stash in list order, the slot that has been free for longest first.
void BindSlots(Program& program);

}  // namespace sluice
