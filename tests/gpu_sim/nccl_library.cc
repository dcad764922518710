#include "tests/gpu_sim/nccl_library.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "tests/gpu_sim/nccl_clique.h"

namespace gpu_sim {
namespace {

using sluice::kForever;

// From the last member's call to the end of joining or splitting.
constexpr Nanoseconds kJoinTime = 3 * sluice::kMillisecond;

std::string Place(const Caller& caller) {
  return absl::StrCat(caller.name, " at ", caller.site.file_name(), ":", caller.site.line());
}

}  // namespace

std::string NameOf(const ncclComm& comm) {
  return absl::StrCat("rank ", comm.rank, " of communicator ", comm.clique->number);
}

ncclResult_t Nccl::Refuse(const Caller& caller, ncclComm_t comm, ncclResult_t result, const std::string& why) {
  const std::string who = comm != nullptr ? absl::StrCat(" by ", NameOf(*comm)) : "";
  driver_->AddReport(ReportKind::kUsage, absl::StrCat(Place(caller), who, ": ", why));
  return result;
}

ncclResult_t Nccl::NewId(ncclUniqueId* id) {
  std::lock_guard lock(mutex_);
  std::memset(id, 0, sizeof(*id));
  absl::StrCat("simulated world ", ids_++).copy(id->internal, sizeof(id->internal) - 1);
  return ncclSuccess;
}

ncclComm* Nccl::NewComm(std::shared_ptr<Clique> clique, int rank, int device) {
  ncclComm& comm = comms_.emplace_back();
  comm.rank = rank;
  comm.device = device;
  clique->members[rank] = &comm;
  comm.clique = std::move(clique);
  return &comm;
}

ncclResult_t Nccl::Join(const Caller& caller, ncclComm_t* comm, int ranks, const ncclUniqueId& id, int rank,
                        const ncclConfig_t* config) {
  std::lock_guard lock(mutex_);
  if (config == nullptr || config->magic != 0xcafebeef || config->blocking != 0) {
    return Refuse(caller, nullptr, ncclInvalidArgument, "the simulated NCCL has non-blocking communicators only");
  }
  if (comm == nullptr || rank < 0 || rank >= ranks) return ncclInvalidArgument;
  const int device = Driver::CurrentDevice();
  if (const ncclResult_t result = CountCall(device, nullptr); result != ncclSuccess) return result;
  std::shared_ptr<Clique>& world = worlds_[std::string(id.internal, sizeof(id.internal))];
  if (world == nullptr) world = std::make_shared<Clique>(cliques_++, ranks);
  if (static_cast<int>(world->members.size()) != ranks || world->members[rank] != nullptr) {
    return Refuse(caller, nullptr, ncclInvalidUsage,
                  absl::StrCat("rank ", rank, " of ", ranks, " joins a world of ", world->members.size(),
                               " ranks twice, or another"));
  }
  for (const ncclComm* other : world->members) {
    if (other == nullptr || other->device != device) continue;
    return Refuse(
        caller, nullptr, ncclInvalidUsage,
        absl::StrCat("Duplicate GPU detected : rank ", rank, " and rank ", other->rank, " both on device ", device));
  }
  *comm = NewComm(world, rank, device);
  if (++world->joined == ranks) world->ready_at = driver_->options().world->Now() + kJoinTime;
  return ncclInProgress;
}

ncclResult_t Nccl::Split(const Caller& caller, ncclComm_t comm, int color, int key, ncclComm_t* made) {
  std::lock_guard lock(mutex_);
  if (const ncclResult_t result = Check(caller, comm); result != ncclSuccess) return result;
  if (made == nullptr || color < NCCL_SPLIT_NOCOLOR) return ncclInvalidArgument;
  comm->split_target = made;
  comm->split_color = color;
  comm->split_key = key;
  SplitRound& round = comm->clique->splits[comm->splits++];
  round.callers.push_back(comm);
  if (round.callers.size() == comm->clique->members.size()) {
    round.ready_at = driver_->options().world->Now() + kJoinTime;
  }
  return ncclInProgress;
}

bool Nccl::SplitIsDone(ncclComm* comm) {
  SplitRound& round = comm->clique->splits[comm->splits - 1];
  if (driver_->options().world->Now() < round.ready_at) return false;
  if (round.children.empty()) {  // the first one to see it
    std::stable_sort(round.callers.begin(), round.callers.end(), [](const ncclComm* a, const ncclComm* b) {
      return std::tuple(a->split_color, a->split_key, a->rank) < std::tuple(b->split_color, b->split_key, b->rank);
    });
    for (auto begin = round.callers.begin(); begin != round.callers.end();) {
      const auto end = std::find_if(begin, round.callers.end(),
                                    [&](const ncclComm* other) { return other->split_color != (*begin)->split_color; });
      auto clique = std::make_shared<Clique>((*begin)->split_color < 0 ? -1 : cliques_++, end - begin);
      clique->ready_at = round.ready_at;
      for (int rank = 0; begin != end; ++begin, ++rank) {
        round.children[*begin] = clique->number < 0 ? nullptr : NewComm(clique, rank, (*begin)->device);
      }
    }
  }
  *std::exchange(comm->split_target, nullptr) = round.children[comm];
  return true;
}

ncclResult_t Nccl::Count(const Caller& caller, ncclComm_t comm, int* ranks) {
  std::lock_guard lock(mutex_);
  if (const ncclResult_t result = Check(caller, comm); result != ncclSuccess) return result;
  *ranks = static_cast<int>(comm->clique->members.size());
  return ncclSuccess;
}

ncclResult_t Nccl::RankOf(const Caller& caller, ncclComm_t comm, int* rank) {
  std::lock_guard lock(mutex_);
  if (const ncclResult_t result = Check(caller, comm); result != ncclSuccess) return result;
  *rank = comm->rank;
  return ncclSuccess;
}

ncclResult_t Nccl::Check(const Caller& caller, ncclComm_t comm) {
  if (comm == nullptr) return ncclInvalidArgument;
  if (comm->life != ncclComm::Life::kMember) {
    return Refuse(caller, comm, ncclInvalidArgument, "its communicator has been finalized, destroyed or aborted");
  }
  if (const ncclResult_t result = CountCall(comm->device, comm); result != ncclSuccess) return result;
  if (const ncclResult_t error = ErrorOf(comm); error != ncclSuccess) return error;
  if (driver_->options().world->Now() < comm->clique->ready_at || comm->split_target != nullptr || comm->in_progress) {
    return Refuse(caller, comm, ncclInvalidArgument,
                  "the call before it is still in progress: ask ncclCommGetAsyncError until it says otherwise");
  }
  return ncclSuccess;
}

void Nccl::SetError(ncclComm* comm, ncclResult_t error, const std::string& text) {
  if (comm->error != ncclSuccess) return;
  comm->error = error;
  comm->error_text = text;
}

ncclResult_t Nccl::ErrorOf(ncclComm* comm) {
  if (driver_->options().world->Now() >= comm->error_at) SetError(comm, comm->late_error, comm->late_text);
  return comm->error;
}

ncclResult_t Nccl::AsyncError(const Caller& caller, ncclComm_t comm, ncclResult_t* error) {
  std::lock_guard lock(mutex_);
  if (comm == nullptr || error == nullptr) return ncclInvalidArgument;
  if (comm->life == ncclComm::Life::kGone) {
    return Refuse(caller, comm, ncclInvalidArgument, "its communicator has been destroyed or aborted");
  }
  *error = ErrorOf(comm);
  if (*error != ncclSuccess) return ncclSuccess;
  const Clique& clique = *comm->clique;
  *error = ncclInProgress;
  if (driver_->options().world->Now() < clique.ready_at) return ncclSuccess;
  if (comm->split_target != nullptr && !SplitIsDone(comm)) return ncclSuccess;
  if (comm->polls_left > 0 && comm->polls_left-- > 0) return ncclSuccess;
  IssuePending(comm);
  if (comm->life == ncclComm::Life::kFinalized && clique.finalized < static_cast<int>(clique.members.size())) {
    return ncclSuccess;
  }
  *error = comm->error;
  return ncclSuccess;
}

const char* Nccl::LastError(ncclComm_t comm) {
  std::lock_guard lock(mutex_);
  return comm != nullptr ? comm->error_text.c_str() : "";
}

ncclResult_t Nccl::Finalize(const Caller& caller, ncclComm_t comm) {
  std::lock_guard lock(mutex_);
  if (const ncclResult_t result = Check(caller, comm); result != ncclSuccess) return result;
  comm->life = ncclComm::Life::kFinalized;
  ++comm->clique->finalized;
  return ncclInProgress;
}

ncclResult_t Nccl::Destroy(const Caller& caller, ncclComm_t comm) {
  std::lock_guard lock(mutex_);
  if (comm == nullptr || comm->life == ncclComm::Life::kGone) return ncclInvalidArgument;
  if (comm->life != ncclComm::Life::kFinalized ||
      comm->clique->finalized < static_cast<int>(comm->clique->members.size())) {
    return Refuse(caller, comm, ncclInvalidUsage,
                  "a communicator is finalized before it is destroyed, by all its ranks");
  }
  comm->life = ncclComm::Life::kGone;
  return ncclSuccess;
}

ncclResult_t Nccl::Abort(const Caller& caller, ncclComm_t comm) {
  std::lock_guard lock(mutex_);
  if (comm == nullptr) return ncclInvalidArgument;
  if (comm->life == ncclComm::Life::kGone) {
    return Refuse(caller, comm, ncclInvalidArgument, "its communicator has been destroyed or aborted");
  }
  comm->life = ncclComm::Life::kGone;
  comm->unissued.clear();
  driver_->execution()->GiveUp(comm->given_up);
  return ncclSuccess;
}

int64_t Nccl::calls(int device) const {
  std::lock_guard lock(mutex_);
  const auto found = health_.find(device);
  return found != health_.end() ? found->second.calls : 0;
}

ncclResult_t Nccl::CountCall(int device, ncclComm* comm) {
  Health& health = health_[device];
  const int64_t call = health.calls++;
  for (const NcclFault& fault : driver_->options().nccl_faults) {
    if (fault.device == device && fault.at == call) Strike(fault, comm);
  }
  return health.dead ? ncclSystemError : ncclSuccess;
}

void Nccl::Strike(const NcclFault& fault, ncclComm* comm) {
  Health& health = health_[fault.device];
  const Nanoseconds at = driver_->options().world->Now() + fault.delay;
  const auto give = [&](ncclComm* to, ncclResult_t error, std::string text) {
    if (to == nullptr || at >= to->error_at || fault.delay == kForever) return;
    to->error_at = at;
    to->late_error = error;
    to->late_text = std::move(text);
  };
  switch (fault.kind) {
    case NcclFault::Kind::kSlows:
      health.factor = fault.factor;
      return;
    case NcclFault::Kind::kErrs:
      return give(comm, fault.error, "an error on demand");
    case NcclFault::Kind::kStalls:
      health.stalled = true;
      return BreakAll(fault.device);
    case NcclFault::Kind::kDies:
      break;
  }
  health.dead = health.stalled = true;
  BreakAll(fault.device);
  for (const ncclComm& dead : comms_) {
    for (ncclComm* other : dead.clique->members) {
      if (dead.device != fault.device || other == &dead) continue;
      give(other, ncclRemoteError, absl::StrCat("the connection to ", NameOf(dead), " was closed by the other side"));
    }
  }
}

void Nccl::BreakAll(int device) {
  for (const ncclComm& comm : comms_) {
    for (const ExchangeRef& exchange : comm.exchanges) {
      if (comm.device == device) driver_->execution()->Break(exchange);
    }
  }
}

}  // namespace gpu_sim
