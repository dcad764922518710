#include "kernels/cuda/nccl_rank.h"

#include <cstring>
#include <deque>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kernels/cuda/device_state.h"
#include "kernels/cuda/nccl_errors.h"
#include "kernels/cuda/stream.h"

namespace sluice::cuda {
namespace {

// A call that is issued is in progress for as long as a thread of NCCL takes to launch it.
constexpr Nanoseconds kLaunchTime = 30 * kSecond;

class NcclRankOnGpu final : public NcclRank {
 public:
  NcclRankOnGpu(World* world, Device* device, const NcclRankOptions& options)
      : world_(world), device_(device), state_(StateOf(device)), ordinal_(state_->ordinal()), options_(options) {}
  ~NcclRankOnGpu() override { Abort(); }

  absl::Status Join();
  absl::StatusOr<bool> Poll() override;
  absl::Status StartSplit(int color, int key) override;
  std::unique_ptr<Stream> NewStream(absl::string_view name) override {
    return std::make_unique<CudaStream>(state_, device_, name, StreamPriority::kHighest);
  }
  void Issue(Stream* stream, int communicator, absl::Span<const NcclLeg> legs) override {
    OnGpu(stream)->Issue("a transfer over NCCL",
                         [=, this, data = legs.data(), count = legs.size()](cudaStream_t on, const Workspace&) {
                           return Launch(communicator, on, {data, count});
                         });
  }
  void AllGather(Stream* stream, int communicator, const std::byte* mine, std::byte* all, int64_t bytes) override {
    OnGpu(stream)->Issue("a gather over NCCL", [=, this](cudaStream_t on, const Workspace&) {
      std::lock_guard lock(mutex_);
      return Settle(communicator, "ncclAllGather",
                    aborted_ ? ncclInvalidUsage : ncclAllGather(mine, all, bytes, ncclInt8, CommOf(communicator), on));
    });
  }
  void Abort() override;
  void StartClose() override;

 private:
  static CudaStream* OnGpu(Stream* stream) { return static_cast<CudaStream*>(stream); }
  std::string Where() const { return absl::StrCat("rank ", options_.rank, " of ", options_.ranks, ", GPU ", ordinal_); }
  cudaError_t Launch(int communicator, cudaStream_t stream, absl::Span<const NcclLeg> legs);
  // The device may be gone already.
  absl::Status Enter() const {
    const cudaError_t error = cudaSetDevice(ordinal_);
    return error == cudaSuccess ? absl::OkStatus() : CudaError(error, "cudaSetDevice", Where());
  }
  // Below: REQUIRES the lock.
  ncclComm_t CommOf(int communicator) const { return children_[communicator]; }
  // Waits until a call has been launched; its error is the rank's.
  cudaError_t Settle(int communicator, const char* call, ncclResult_t result);
  void SetError(ncclComm_t comm, const char* call, ncclResult_t result);
  absl::StatusOr<bool> PollOne(ncclComm_t comm);
  template <class Body>
  void ForAll(Body body) {
    for (ncclComm_t comm : children_) {
      if (comm != nullptr) body(comm);
    }
    if (world_comm_ != nullptr) body(world_comm_);
  }

  World* const world_;
  Device* const device_;
  DeviceState* const state_;  // until the streams are gone
  const int ordinal_;
  const NcclRankOptions options_;
  std::mutex mutex_;
  absl::Status error_;
  bool aborted_ = false, closing_ = false;
  ncclComm_t world_comm_ = nullptr;
  std::deque<ncclComm_t> children_;  // stay where they are: NCCL writes the last one when its split has ended
  bool splitting_ = false, child_belongs_ = false;
};

absl::Status NcclRankOnGpu::Join() {
  RETURN_IF_ERROR(state_->Enter());
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  if (options_.channels_max > 0) config.maxCTAs = options_.channels_max;
  ncclUniqueId id;
  if (options_.id.size() != sizeof(id.internal)) return absl::InvalidArgumentError("not the id of a world of NCCL");
  std::memcpy(id.internal, options_.id.data(), sizeof(id.internal));
  const ncclResult_t result = ncclCommInitRankConfig(&world_comm_, options_.ranks, id, options_.rank, &config);
  if (result == ncclSuccess || result == ncclInProgress) return absl::OkStatus();
  return NcclError(result, "ncclCommInitRankConfig", Where(), ncclGetLastError(nullptr));
}

absl::StatusOr<bool> NcclRankOnGpu::PollOne(ncclComm_t comm) {
  ncclResult_t state = ncclSuccess;
  const ncclResult_t result = ncclCommGetAsyncError(comm, &state);
  if (result == ncclSuccess && state == ncclInProgress) return false;
  if (result == ncclSuccess && state == ncclSuccess) return true;
  SetError(comm, "ncclCommGetAsyncError", result != ncclSuccess ? result : state);
  return error_;
}

absl::StatusOr<bool> NcclRankOnGpu::Poll() {
  std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(error_);
  if (aborted_ || world_comm_ == nullptr) return true;
  RETURN_IF_ERROR(Enter());
  ASSIGN_OR_RETURN(bool settled, PollOne(world_comm_));
  if (splitting_ && settled) {
    splitting_ = false;
    if (!child_belongs_) children_.pop_back();
  }
  for (ncclComm_t comm : children_) {
    if (comm == nullptr) continue;
    ASSIGN_OR_RETURN(const bool this_one, PollOne(comm));
    settled &= this_one;
  }
  if (settled && closing_) {
    ForAll([](ncclComm_t comm) { IgnoreError(ncclCommDestroy(comm)); });
    children_.clear();
    world_comm_ = nullptr;
  }
  return settled;
}

absl::Status NcclRankOnGpu::StartSplit(int color, int key) {
  std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(error_);
  RETURN_IF_ERROR(Enter());
  children_.push_back(nullptr);
  child_belongs_ = color >= 0;
  splitting_ = true;
  const ncclResult_t result =
      ncclCommSplit(world_comm_, child_belongs_ ? color : NCCL_SPLIT_NOCOLOR, key, &children_.back(), nullptr);
  if (result != ncclSuccess && result != ncclInProgress) SetError(world_comm_, "ncclCommSplit", result);
  return error_;
}

cudaError_t NcclRankOnGpu::Launch(int communicator, cudaStream_t stream, absl::Span<const NcclLeg> legs) {
  std::lock_guard lock(mutex_);
  if (aborted_) return Settle(communicator, "", ncclInvalidUsage);
  const ncclComm_t comm = CommOf(communicator);
  const bool grouped = legs.size() > 1;
  ncclResult_t result = grouped ? ncclGroupStart() : ncclSuccess;
  const char* call = "ncclGroupStart";
  cudaError_t copied = cudaSuccess;
  for (const NcclLeg& leg : legs) {
    if (leg.from != nullptr && leg.to != nullptr) {
      copied = cudaMemcpyAsync(leg.to, leg.from, leg.bytes, cudaMemcpyDeviceToDevice, stream);
      if (copied != cudaSuccess) break;
      continue;
    }
    if (result != ncclSuccess && result != ncclInProgress) break;
    call = leg.from != nullptr ? "ncclSend" : "ncclRecv";
    result = leg.from != nullptr ? ncclSend(leg.from, leg.bytes, ncclInt8, leg.peer, comm, stream)
                                 : ncclRecv(leg.to, leg.bytes, ncclInt8, leg.peer, comm, stream);
  }
  if (grouped) {
    const ncclResult_t ended = ncclGroupEnd();
    if (result == ncclSuccess || result == ncclInProgress) {
      result = ended;
      call = "ncclGroupEnd";
    }
  }
  if (copied != cudaSuccess) return copied;
  return Settle(communicator, call, result);
}

// While it is in progress nothing may be done with the stream. It is short: the ranks have been connected before.
cudaError_t NcclRankOnGpu::Settle(int communicator, const char* call, ncclResult_t result) {
  if (aborted_) return cudaErrorContextIsDestroyed;
  const Nanoseconds deadline = world_->Now() + kLaunchTime;
  while (result == ncclInProgress && world_->Now() < deadline) {
    ncclResult_t state = ncclInProgress;
    result = ncclCommGetAsyncError(CommOf(communicator), &state);
    if (result == ncclSuccess) result = state;
  }
  if (result == ncclSuccess) return cudaSuccess;
  SetError(CommOf(communicator), call, result);
  return cudaErrorUnknown;
}

void NcclRankOnGpu::SetError(ncclComm_t comm, const char* call, ncclResult_t result) {
  if (error_.ok()) error_ = NcclError(result, call, Where(), ncclGetLastError(comm));
}

// In one group, so that all are told to end before the first one's memory is freed.
void NcclRankOnGpu::Abort() {
  std::lock_guard lock(mutex_);
  if (std::exchange(aborted_, true) || !Enter().ok()) return;
  IgnoreError(ncclGroupStart());
  ForAll([](ncclComm_t comm) { IgnoreError(ncclCommAbort(comm)); });
  IgnoreError(ncclGroupEnd());
}

void NcclRankOnGpu::StartClose() {
  std::lock_guard lock(mutex_);
  if (!error_.ok() || aborted_ || !Enter().ok()) return;
  closing_ = true;
  ForAll([&](ncclComm_t comm) {
    const ncclResult_t result = ncclCommFinalize(comm);
    if (result != ncclSuccess && result != ncclInProgress) SetError(comm, "ncclCommFinalize", result);
  });
}

}  // namespace

absl::StatusOr<std::string> NewNcclId() {
  ncclUniqueId id;
  if (const ncclResult_t result = ncclGetUniqueId(&id); result != ncclSuccess) {
    return NcclError(result, "ncclGetUniqueId", "this process", ncclGetLastError(nullptr));
  }
  return std::string(id.internal, sizeof(id.internal));
}

absl::StatusOr<std::string> NcclVersion() {
  int version = 0;
  if (const ncclResult_t result = ncclGetVersion(&version); result != ncclSuccess) {
    return NcclError(result, "ncclGetVersion", "this process", ncclGetLastError(nullptr));
  }
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

absl::StatusOr<std::unique_ptr<NcclRank>> NcclRank::Join(World* world, Device* device, const NcclRankOptions& options) {
  if (StateOf(device) == nullptr) {
    return absl::InvalidArgumentError("NCCL moves data between GPUs: this rank's device is none");
  }
  auto rank = std::make_unique<NcclRankOnGpu>(world, device, options);
  RETURN_IF_ERROR(rank->Join());
  return rank;
}

}  // namespace sluice::cuda
