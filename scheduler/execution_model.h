// What every action of a program waits for when it runs: the model of program.h as a table. The verifier proves
// progress with it and the simulator times with it.
//
// An action goes through: issued (the rank's one issuing thread has come to it), started (it is at the head of its
// queue and what it needs has ended), ended. A transfer ends when both ends have started, a collective when all members
// have; both then end at once.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/program.h"

namespace sluice {

// Positions in the same rank's list, -1: nothing.
struct Waits {
  int32_t queue_next = -1;  // the action behind this one in its queue
  // SEND: what wrote the slot. RECV: the slot's last consumer. COLLECTIVE: compute or OPTIMIZER_STEP before it
  int32_t start_after = -1;
  // compute, NORM, POST_VALIDATION and what passes on: the RECV of its input. OPTIMIZER_STEP: the last collective
  int32_t issue_after_input = -1;
  int32_t issue_after_slot = -1;  // compute: the last SEND out of the slot it writes
  // The two above, where the issuing thread goes on and the device waits (IssueAhead).
  int32_t start_after_input = -1;
  int32_t start_after_slot = -1;
  int32_t partner = -1;  // transfer: the other end's position in the peer's list
};

enum class QueueView : uint8_t {
  kAsAssigned,
  kMergedCommunication,  // all that is not compute in one queue per rank, in issue order
};

struct ExecutionModel {
  std::vector<std::vector<Waits>> waits;          // per rank, per action
  std::vector<std::vector<int32_t>> queue_heads;  // per rank, the first action of each queue
};

// REQUIRES: every transfer has its other end, ids and slots are in range.
ExecutionModel BuildExecutionModel(const Program& program);

// Puts a model's actions into queues by another view; all other waits stay.
void SetQueues(const Program& program, QueueView view, ExecutionModel& model);

// The issuing threads no longer wait for compute actions' inputs and slots; the actions do. What post-validation
// decides on the host is still waited for.
void IssueAhead(const Program& program, ExecutionModel& model);

}  // namespace sluice
