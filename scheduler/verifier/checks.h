// The verifier's parts, in the order in which Verify runs them; each relies on those before it.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "scheduler/deadlock.h"
#include "scheduler/execution_model.h"
#include "scheduler/program.h"
#include "scheduler/verifier.h"

namespace sluice::verifier {

// Ids in range, every action on its rank and in the lists exactly once.
absl::Status CheckInventory(const Program& program);

// Each rank's list, walked in order: what an action reads was produced before it, what it writes is free, slots are
// those that were bound, nothing computes after the end of the step. Fills live bytes into the report.
absl::Status CheckOrder(const Program& program, const VerifierOptions& options, VerifyReport& report);

// The first two weight gradients of one (stage, copy, gradient group) that don't ascend; empty if all do.
std::string FindDescendingWeightGradient(const Program& program, int gradient_groups);

// Both ends of every channel and queue carry the same messages in the same order, from and to slots of one size.
absl::Status CheckChannels(const Program& program, const ExecutionModel& model, const VerifierOptions& options);

// Under strict rendezvous, with the model's queues.
bool RunsToItsEnd(const Program& program, const ExecutionModel& model);

// Runs to its end under strict rendezvous; else the shortest cycle of waits, in words.
absl::Status CheckProgress(const Program& program, const ExecutionModel& model, QueueView view);
std::optional<Deadlock> FindDeadlock(const Program& program, const ExecutionModel& model, QueueView view);

}  // namespace sluice::verifier
