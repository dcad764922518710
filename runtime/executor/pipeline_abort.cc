#include "runtime/executor/pipeline_abort.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"

namespace sluice {

std::string WithPeer(const Action& action) {
  if (!IsTransfer(action.kind)) return ToString(action);
  return absl::StrCat(ToString(action), IsSend(action.kind) ? " to rank " : " from rank ", action.peer.value());
}

PipelineAbort::PipelineAbort(World* world, const RankGrid& grid) : world_(world), grid_(grid), ranks_(grid.ranks()) {}

void PipelineAbort::Abort(const absl::Status& cause) {
  CHECK(!cause.ok()) << "an abort needs a cause";
  std::lock_guard lock(mutex_);
  if (signal_->Done()) return;
  report_ = ReportLocked();
  signal_->Set(cause, world_->Now());
}

absl::Status PipelineAbort::cause() const { return signal_->Done() ? signal_->status() : absl::OkStatus(); }

void PipelineAbort::SetIdle(WorldRank rank) { Set(rank, {.doing = Doing::kIdle}); }

void PipelineAbort::SetIssuing(WorldRank rank, const Action& action) {
  Set(rank, {.doing = Doing::kIssuing, .action = action});
}

void PipelineAbort::SetWaiting(WorldRank rank, const Action& action, const Action& awaited) {
  Set(rank, {.doing = Doing::kWaiting, .action = action, .awaited = awaited});
}

void PipelineAbort::Set(WorldRank rank, RankState state) {
  state.since = world_->Now();
  std::lock_guard lock(mutex_);
  ranks_[rank.index()] = state;
  ++moves_;
}

uint64_t PipelineAbort::moves() const {
  std::lock_guard lock(mutex_);
  return moves_;
}

std::string PipelineAbort::Report() const {
  std::lock_guard lock(mutex_);
  return signal_->Done() ? report_ : ReportLocked();
}

std::string PipelineAbort::ReportLocked() const {
  const Nanoseconds now = world_->Now();
  std::string text;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    const RankState& state = ranks_[rank];
    const double seconds = static_cast<double>(now - state.since) / kSecond;
    if (state.doing == Doing::kElsewhere) continue;
    absl::StrAppend(&text, grid_.Describe(WorldRank(rank)));
    switch (state.doing) {
      case Doing::kElsewhere:
      case Doing::kIdle:
        absl::StrAppend(&text, " has no step to run\n");
        break;
      case Doing::kIssuing:
        absl::StrAppend(&text, absl::StrFormat(" has issued %s for %.3f s\n", WithPeer(state.action), seconds));
        break;
      case Doing::kWaiting:
        absl::StrAppend(&text, absl::StrFormat(" has waited %.3f s before %s for %s\n", seconds, ToString(state.action),
                                               WithPeer(state.awaited)));
        break;
    }
  }
  return text;
}

}  // namespace sluice
