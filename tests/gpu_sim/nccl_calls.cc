// NCCL's calls: each hands its arguments to the library.
#include "tests/gpu_sim/nccl_library.h"

using gpu_sim::Caller;
using gpu_sim::Driver;
using gpu_sim::NcclOperation;
using Site = std::source_location;

namespace {

ncclResult_t Give(int* to, int value) {
  if (to == nullptr) return ncclInvalidArgument;
  *to = value;
  return ncclSuccess;
}

}  // namespace

#define NCCL_CALL(expression)                                          \
  const Caller caller = {__func__, site, __builtin_return_address(0)}; \
  gpu_sim::Nccl& nccl = Driver::Get().nccl();                          \
  return expression

ncclResult_t ncclGetVersion(int* version) { return Give(version, NCCL_VERSION_CODE); }

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclUnhandledCudaError:
      return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case ncclSystemError:
      return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case ncclInternalError:
      return "internal error - please report this issue to the NCCL developers";
    case ncclInvalidArgument:
      return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case ncclInvalidUsage:
      return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclInProgress:
      return "NCCL operation in progress";
    default:
      return "unknown result code";
  }
}

const char* ncclGetLastError(ncclComm_t comm) { return Driver::Get().nccl().LastError(comm); }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) { return Driver::Get().nccl().NewId(id); }
ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config,
                                    Site site) {
  NCCL_CALL(nccl.Join(caller, comm, ranks, id, rank, config));
}
ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* made, ncclConfig_t*, Site site) {
  NCCL_CALL(nccl.Split(caller, comm, color, key, made));
}
ncclResult_t ncclCommCount(const ncclComm_t comm, int* count, Site site) { NCCL_CALL(nccl.Count(caller, comm, count)); }
ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank, Site site) {
  NCCL_CALL(nccl.RankOf(caller, comm, rank));
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error, Site site) {
  NCCL_CALL(nccl.AsyncError(caller, comm, error));
}
ncclResult_t ncclCommFinalize(ncclComm_t comm, Site site) { NCCL_CALL(nccl.Finalize(caller, comm)); }
ncclResult_t ncclCommDestroy(ncclComm_t comm, Site site) { NCCL_CALL(nccl.Destroy(caller, comm)); }
ncclResult_t ncclCommAbort(ncclComm_t comm, Site site) { NCCL_CALL(nccl.Abort(caller, comm)); }

ncclResult_t ncclGroupStart(Site) { return Driver::Get().nccl().BeginGroup(); }
ncclResult_t ncclGroupEnd(Site site) { NCCL_CALL(nccl.EndGroup(caller)); }
ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream, Site site) {
  NCCL_CALL(nccl.Add(caller, {NcclOperation::Kind::kSend, comm, data, nullptr, count, type, peer, stream, site}));
}
ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream,
                      Site site) {
  NCCL_CALL(nccl.Add(caller, {NcclOperation::Kind::kRecv, comm, nullptr, data, count, type, peer, stream, site}));
}
ncclResult_t ncclAllGather(const void* mine, void* all, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream, Site site) {
  NCCL_CALL(nccl.Add(caller, {NcclOperation::Kind::kAllGather, comm, mine, all, count, type, -1, stream, site}));
}
