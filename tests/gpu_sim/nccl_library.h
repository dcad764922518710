// NCCL on the simulated GPU: communicators, groups, and how the ends of transfers and collectives find each other. Its
// ranks are threads of one process, each with a device. Internal; include/nccl.h has the calls.
//
// Nothing is buffered: a transfer is an Exchange (execution.h) of two commands, a collective one of all members', and
// what a rank issues in one group is one command, as it is one kernel. The k-th send of a rank to another one meets the
// k-th receive there; what it must fit is checked when both have been issued. Communicators are non-blocking: joining
// and splitting take time after the last member has called, and what a call has issued reaches the stream only once
// ncclCommGetAsyncError has said that it is no longer in progress.
//
// Threads: any; one lock. Several devices of one thread need no group here.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tests/gpu_sim/driver.h"
#include "tests/gpu_sim/include/nccl.h"

namespace gpu_sim {

// The members of one communicator.
struct Clique;

// One end of a transfer or of a collective.
struct NcclOperation {
  enum class Kind : uint8_t { kSend, kRecv, kAllGather };
  Kind kind = Kind::kSend;
  ncclComm* comm = nullptr;
  const void* from = nullptr;
  void* to = nullptr;
  size_t count = 0;
  ncclDataType_t type = ncclInt8;
  int peer = -1;
  cudaStream_t stream = nullptr;
  std::source_location site;

  int64_t bytes() const;
};

}  // namespace gpu_sim

// One rank's end of a communicator; the handles point here.
struct ncclComm {
  enum class Life : uint8_t { kMember, kFinalized, kGone };

  std::shared_ptr<gpu_sim::Clique> clique;
  int rank = 0;
  int device = 0;
  Life life = Life::kMember;
  ncclResult_t error = ncclSuccess;  // for good
  std::string error_text;
  sluice::Nanoseconds error_at = sluice::kForever;  // when there will be another one, on demand
  ncclResult_t late_error = ncclSuccess;
  std::string late_text;
  bool in_progress = false;  // something has been issued, and
  int polls_left = 0;        // so often says it so
  std::vector<gpu_sim::NcclOperation> unissued;
  int64_t collectives = 0, splits = 0;  // so far
  ncclComm_t* split_target = nullptr;   // where the child that is being made is to be told
  int split_color = 0, split_key = 0;
  cudaStream_t stream = nullptr;                // that it has been used on
  std::vector<gpu_sim::ExchangeRef> exchanges;  // that may not have happened
  std::shared_ptr<gpu_sim::Cancellation> given_up = std::make_shared<gpu_sim::Cancellation>();
};

namespace gpu_sim {

class Nccl {
 public:
  explicit Nccl(Driver* driver) : driver_(driver) {}

  ncclResult_t NewId(ncclUniqueId* id);
  ncclResult_t Join(const Caller& caller, ncclComm_t* comm, int ranks, const ncclUniqueId& id, int rank,
                    const ncclConfig_t* config);
  ncclResult_t Split(const Caller& caller, ncclComm_t comm, int color, int key, ncclComm_t* made);
  ncclResult_t Count(const Caller& caller, ncclComm_t comm, int* ranks);
  ncclResult_t RankOf(const Caller& caller, ncclComm_t comm, int* rank);
  ncclResult_t AsyncError(const Caller& caller, ncclComm_t comm, ncclResult_t* error);
  ncclResult_t Finalize(const Caller& caller, ncclComm_t comm);
  ncclResult_t Destroy(const Caller& caller, ncclComm_t comm);
  ncclResult_t Abort(const Caller& caller, ncclComm_t comm);
  const char* LastError(ncclComm_t comm);

  ncclResult_t BeginGroup();
  ncclResult_t EndGroup(const Caller& caller);
  ncclResult_t Add(const Caller& caller, NcclOperation operation);

  int64_t calls(int device) const;

 private:
  // What faults have done to a device's rank.
  struct Health {
    int64_t calls = 0;  // so far
    bool dead = false, stalled = false;
    double factor = 1;
  };
  // Below: REQUIRES the lock.
  // Whether the call may go on: counts it, lets faults strike, refuses what is over or still in progress.
  ncclResult_t Check(const Caller& caller, ncclComm_t comm);
  ncclResult_t CountCall(int device, ncclComm* comm);
  void Strike(const NcclFault& fault, ncclComm* comm);
  // None of the exchanges of this device's rank comes about.
  void BreakAll(int device);
  ncclResult_t Refuse(const Caller& caller, ncclComm_t comm, ncclResult_t result, const std::string& why);
  ncclComm* NewComm(std::shared_ptr<Clique> clique, int rank, int device);
  // Tells the children, once all members have called.
  bool SplitIsDone(ncclComm* comm);
  ncclResult_t CheckOperation(const Caller& caller, const NcclOperation& operation);
  ncclResult_t CheckGroup(const Caller& caller, const std::vector<NcclOperation>& operations);
  void SetError(ncclComm* comm, ncclResult_t error, const std::string& text);
  ncclResult_t ErrorOf(ncclComm* comm);
  ncclResult_t StartLaunches(const Caller& caller, const std::vector<NcclOperation>& operations);
  // Puts what was issued into the stream.
  void IssuePending(ncclComm* comm);
  void Launch(const std::vector<NcclOperation>& operations);
  ExchangeRef Meet(const NcclOperation& operation);
  ExchangeRef MeetTransfer(const NcclOperation& operation);
  ExchangeRef MeetCollective(const NcclOperation& operation);
  void Mismatch(const NcclOperation& one, const NcclOperation& other, const ExchangeRef& exchange);
  // Of an exchange of so many bytes between members of the clique.
  void SetDuration(Exchange* exchange, const Clique& clique, const std::vector<int>& ranks, int64_t bytes);

  Driver* const driver_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Clique>> worlds_;  // by id
  std::deque<ncclComm> comms_;
  int64_t ids_ = 0, cliques_ = 0;
  uint64_t random_ = 0;
  std::map<int, Health> health_;       // by device
  std::map<int, CompletionRef> last_;  // command of each device, where one runs at a time
};

}  // namespace gpu_sim
