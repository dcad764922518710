// Proves that a program runs to its end, or says why not. Shares no code with generators and lowering. Linear in the
// number of actions.
//
// What is proven: every action exactly once and on its rank; every input produced before it is used; both ends of
// every channel agree in order, count and size; no slot written while held; collectives in the same order on all
// members; weight gradients ascending; slots and bytes within the caps; and progress under strict rendezvous in the
// model of program.h, the issuing thread included, for exactly the queues assigned.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "scheduler/program.h"

namespace sluice {

// Bytes of one slot of each pool of a stage, and what the stage holds all the time (parameters, gradients, optimizer).
struct StageBytes {
  std::array<int64_t, kPoolCount> slot = {};
  int64_t fixed = 0;
};

enum class WeightGradientOrder : uint8_t {
  // Ascending micro-batches per (stage, copy, gradient group), or an error; those of the last stage's I too, which adds
  // the gradient of the head's weight.
  kRequired,
  kReported,  // only VerifyReport::weight_gradient_order says so
};

enum class ProgressProof : uint8_t {
  kAsAssigned,
  kAlsoMerged,  // also with all communication of a rank in one queue in issue order (NCCL)
};

struct VerifierOptions {
  std::vector<StageBytes> stage_bytes;  // per stage; empty: bytes are not checked
  int64_t rank_bytes_cap = 0;           // 0: no cap
  int gradient_groups = 0;              // 0: one per copy
  WeightGradientOrder weight_gradient_order = WeightGradientOrder::kRequired;
  ProgressProof progress = ProgressProof::kAlsoMerged;
};

struct RankReport {
  int64_t allocated_bytes = 0;  // all slots of all pools, and what is fixed: what the executor will hold
  int64_t live_bytes_max = 0;   // most bytes of slots held at once, and what is fixed
};

struct VerifyReport {
  std::vector<RankReport> ranks;
  std::vector<int> in_flight;         // per Placement::Index
  std::string weight_gradient_order;  // empty: ascending; else the first pair that is not
};

// Errors: FAILED_PRECONDITION that names what is wrong, with ranks and actions; for a deadlock the shortest cycle.
// RESOURCE_EXHAUSTED when over the cap, with the number of bytes per rank.
absl::StatusOr<VerifyReport> Verify(const Program& program, const VerifierOptions& options = {});

// That a rank can go over from one list to the other at POST_VALIDATION: both do the same up to there, with the same
// queues and slots. Each is to be proven by Verify. Errors: FAILED_PRECONDITION with the first difference.
absl::Status VerifySwitch(const Program& guess_right, const Program& guess_wrong);

}  // namespace sluice
