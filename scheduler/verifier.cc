#include "scheduler/verifier.h"

#include <algorithm>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "scheduler/deadlock.h"
#include "scheduler/execution_model.h"
#include "scheduler/verifier/checks.h"

namespace sluice {
namespace {

// Bytes of all slots, and what the stages hold all the time.
void AddAllocatedBytes(const Program& program, const std::vector<StageBytes>& bytes, VerifyReport& report) {
  const Placement& placement = program.placement;
  for (int copy = 0; copy < placement.copies(); ++copy) {
    for (int s = 0; s < placement.stages(); ++s) {
      RankReport& rank = report.ranks[placement.RankOf(StageId(s), copy).index()];
      rank.allocated_bytes += bytes[s].fixed;
      rank.live_bytes_max += bytes[s].fixed;
      for (int pool = 0; pool < kPoolCount; ++pool) {
        rank.allocated_bytes += bytes[s].slot[pool] * program.pools[placement.Index(StageId(s), copy)][pool];
      }
    }
  }
}

absl::Status CheckCap(const VerifyReport& report, int64_t cap) {
  std::string over;
  for (size_t r = 0; r < report.ranks.size(); ++r) {
    const int64_t bytes = report.ranks[r].allocated_bytes;
    if (bytes > cap) absl::StrAppend(&over, over.empty() ? "" : ", ", "rank ", r, " needs ", bytes, " bytes");
  }
  if (over.empty()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("too little memory: ", over, "; the cap is ", cap, " bytes a rank"));
}

// Whether no queue holds compute and communication. Then the queues' waits are among those of the merged view, which
// orders all communication of a rank as issued; every wait is for all that it names, so fewer waits can't stop what
// runs with more.
bool MergingOnlyAddsWaits(const Program& program) {
  enum : uint8_t { kComputes = 1, kCommunicates = 2 };
  std::vector<uint8_t> uses(program.queues.size());
  for (const auto& list : program.ranks) {
    for (const Action& a : list) {
      uses[a.queue.index()] |= IsTransfer(a.kind) || IsCollective(a) ? kCommunicates : kComputes;
    }
  }
  return std::find(uses.begin(), uses.end(), kComputes | kCommunicates) == uses.end();
}

absl::Status CheckProgress(const Program& program, ProgressProof proof, ExecutionModel& model) {
  const bool merged_too = proof == ProgressProof::kAlsoMerged;
  if (merged_too && MergingOnlyAddsWaits(program)) {
    SetQueues(program, QueueView::kMergedCommunication, model);
    if (verifier::RunsToItsEnd(program, model)) return absl::OkStatus();
    SetQueues(program, QueueView::kAsAssigned, model);
  }
  RETURN_IF_ERROR(verifier::CheckProgress(program, model, QueueView::kAsAssigned));
  if (!merged_too) return absl::OkStatus();
  SetQueues(program, QueueView::kMergedCommunication, model);
  return verifier::CheckProgress(program, model, QueueView::kMergedCommunication);
}

}  // namespace

absl::StatusOr<VerifyReport> Verify(const Program& program, const VerifierOptions& options) {
  if (!options.stage_bytes.empty() && options.stage_bytes.size() != static_cast<size_t>(program.placement.stages())) {
    return absl::InvalidArgumentError(
        absl::StrCat("sizes for ", options.stage_bytes.size(), " stages, but there are ", program.placement.stages()));
  }
  RETURN_IF_ERROR(verifier::CheckInventory(program));
  VerifyReport report;
  report.ranks.resize(program.ranks.size());
  RETURN_IF_ERROR(verifier::CheckOrder(program, options, report));
  if (!options.stage_bytes.empty()) AddAllocatedBytes(program, options.stage_bytes, report);
  ExecutionModel model = BuildExecutionModel(program);
  RETURN_IF_ERROR(verifier::CheckChannels(program, model, options));
  RETURN_IF_ERROR(CheckProgress(program, options.progress, model));
  const int groups = options.gradient_groups > 0 ? options.gradient_groups : program.placement.copies();
  report.weight_gradient_order = verifier::FindDescendingWeightGradient(program, groups);
  if (!report.weight_gradient_order.empty() && options.weight_gradient_order == WeightGradientOrder::kRequired) {
    return absl::FailedPreconditionError(report.weight_gradient_order);
  }
  if (options.rank_bytes_cap > 0) RETURN_IF_ERROR(CheckCap(report, options.rank_bytes_cap));
  report.in_flight = InFlight(program);
  return report;
}

std::optional<Deadlock> FindDeadlock(const Program& program) {
  VerifyReport report;
  report.ranks.resize(program.ranks.size());
  if (!verifier::CheckInventory(program).ok() || !verifier::CheckOrder(program, {}, report).ok()) return std::nullopt;
  ExecutionModel model = BuildExecutionModel(program);
  if (!verifier::CheckChannels(program, model, {}).ok()) return std::nullopt;
  if (auto deadlock = verifier::FindDeadlock(program, model, QueueView::kAsAssigned)) return deadlock;
  SetQueues(program, QueueView::kMergedCommunication, model);
  return verifier::FindDeadlock(program, model, QueueView::kMergedCommunication);
}

}  // namespace sluice
