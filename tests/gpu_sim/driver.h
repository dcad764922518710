// What the runtime's calls do: the state of devices, streams, events and memory, the real runtime's answers, and what
// is reported. The calls themselves (cuda_runtime.cc) are one line each. Internal to the simulated GPU; machine.h is
// for tests.
//
// Threads: any; one lock.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <source_location>
#include <string>
#include <vector>

#include "tests/gpu_sim/allocations.h"
#include "tests/gpu_sim/call_log.h"
#include "tests/gpu_sim/execution.h"
#include "tests/gpu_sim/include/cuda_runtime.h"
#include "tests/gpu_sim/machine.h"
#include "tests/gpu_sim/order_check.h"
#include "tests/gpu_sim/pinned_memory.h"
#include "tests/gpu_sim/pinned_use.h"
#include "tests/gpu_sim/report.h"

namespace gpu_sim {

class Nccl;

// Who calls: the call's name, its line, its return address.
struct Caller {
  const char* name;
  const std::source_location& site;
  void* return_address = nullptr;
};

// Rows of a copy on one side.
struct CopySide {
  const void* data = nullptr;
  int64_t pitch = 0;
};

class Driver : private PinnedListener {
 public:
  explicit Driver(MachineOptions options);
  ~Driver();
  // The machine that lives, or one from the environment.
  static Driver& Get();

  // Does what a call does, unless a fault strikes or the device is lost, and keeps its error for cudaGetLastError.
  cudaError_t Call(const Caller& caller, const std::function<cudaError_t()>& body);
  cudaError_t LastError(bool clear);

  // Devices (driver_devices.cc).
  int devices() const { return options_.devices; }
  cudaError_t Properties(cudaDeviceProp* properties, int device) const;
  cudaError_t Attribute(int* value, cudaDeviceAttr attribute, int device) const;
  static cudaError_t PriorityRange(int* least, int* greatest);
  cudaError_t SetDevice(int device);
  static int CurrentDevice();
  cudaError_t MemoryInfo(size_t* free, size_t* total) const;
  cudaError_t CanAccessPeer(int* can, int device, int peer) const;
  cudaError_t EnablePeerAccess(int peer, bool enable);
  cudaError_t SynchronizeDevice();

  // Memory (driver_memory.cc).
  cudaError_t Allocate(const Caller& caller, int device, void** data, size_t bytes);
  cudaError_t Free(const Caller& caller, void* data, bool pinned);
  cudaError_t PointerAttributes(cudaPointerAttributes* attributes, const void* data) const;
  cudaError_t Copy(const Caller& caller, CopySide to, CopySide from, int64_t bytes, int64_t rows, cudaMemcpyKind kind,
                   cudaStream_t stream);
  cudaError_t CopyPeer(const Caller& caller, void* to, int to_device, const void* from, int from_device, int64_t bytes,
                       cudaStream_t stream);
  cudaError_t Set(const Caller& caller, void* data, int value, int64_t bytes, cudaStream_t stream);

  // Streams and events (driver_streams.cc).
  cudaError_t NewStream(cudaStream_t* stream, unsigned flags, int priority);
  cudaError_t DestroyStream(const Caller& caller, cudaStream_t stream);
  cudaError_t StreamPriority(const Caller& caller, cudaStream_t stream, int* priority);
  cudaError_t QueryStream(const Caller& caller, cudaStream_t stream);
  cudaError_t SynchronizeStream(const Caller& caller, cudaStream_t stream);
  cudaError_t NewEvent(cudaEvent_t* event, unsigned flags);
  cudaError_t DestroyEvent(const Caller& caller, cudaEvent_t event);
  cudaError_t Record(const Caller& caller, cudaEvent_t event, cudaStream_t stream);
  cudaError_t Wait(const Caller& caller, cudaStream_t stream, cudaEvent_t event);
  cudaError_t QueryEvent(const Caller& caller, cudaEvent_t event);
  cudaError_t SynchronizeEvent(const Caller& caller, cudaEvent_t event);
  cudaError_t ElapsedTime(const Caller& caller, float* milliseconds, cudaEvent_t start, cudaEvent_t end);

  // Kernels (driver_launch.cc).
  cudaError_t SetSharedBytes(const void* kernel, int bytes);
  cudaError_t LaunchKernel(const Caller& caller, KernelLaunch launch);

  // Other libraries (nccl_*.cc): a command of theirs, which `what` says for reports. Errors as of a launch.
  cudaError_t IssueForLibrary(const Caller& caller, cudaStream_t stream, const std::vector<LaunchRegion>& reads,
                              const std::vector<LaunchRegion>& writes, std::string what, Command command);
  const MachineOptions& options() const { return options_; }
  Execution* execution() { return execution_.get(); }
  void AddReport(ReportKind kind, std::string text) { reports_.Add(kind, std::move(text)); }
  Nccl& nccl() { return *nccl_; }

  std::vector<Report> reports() const { return reports_.all(); }
  Counters counters() const;
  std::vector<std::string> wait_sites() const;
  uint64_t trace_hash() const { return execution_->trace_hash(); }

 private:
  struct Stream {
    int device = 0;
    int priority = 0;
    int number = 0;  // in execution_; its agent in order_ is one more
    bool destroyed = false;
  };
  struct Event {
    int device = 0;
    bool timed = true;
    bool destroyed = false;
    CompletionRef recorded;  // null: never
    Clock clock;             // what had been issued before
  };
  struct Device {
    cudaError_t lost = cudaSuccess;
    int64_t bytes = 0;  // allocated
    std::set<int> peers;
    std::map<const void*, int> shared_bytes_max;  // of kernels that asked for more
    int compute = 0, to_device = 0, to_host = 0, local = 0;
    std::vector<int> to_peer;  // engines
  };
  struct CopyPath {
    cudaMemcpyKind kind = cudaMemcpyHostToHost;
    int engine = Command::kNoEngine;
    Nanoseconds duration = 0;
  };
  int64_t memory_bytes() const;
  static int AgentOf(const Stream& stream) { return stream.number + 1; }

  // The object behind a handle; null (and reported) for stream 0, what was destroyed, and what never was.
  Stream* Find(const Caller& caller, cudaStream_t stream);
  Event* Find(const Caller& caller, cudaEvent_t event);
  void ReportDeadlock(const std::vector<uint32_t>& calls);
  cudaError_t WaitFor(const CompletionRef& completion, const Clock& clock);
  void HostSaw(const Clock& clock);
  void OnHostAccess(uintptr_t address, bool writes, void* instruction) override;
  // Checks the order of a command's accesses and issues it.
  void Issue(const Caller& caller, Stream* stream, const std::vector<LaunchRegion>& reads,
             const std::vector<LaunchRegion>& writes, Command command);
  void Access(const Stream& stream, const std::vector<LaunchRegion>& regions, bool writes, uint32_t call,
              std::vector<OrderCheck::Finding>* findings);
  void ReportFindings(uint32_t call, const std::vector<OrderCheck::Finding>& findings);
  // "bytes 0 to 512 of what runtime/arena.cc:12 allocated on device 0".
  std::string NameOf(OrderCheck::Bytes bytes) const;
  bool Reaches(int device, const LiveMemory& allocation) const;
  // Whether a command of this device may touch the regions; reports the first that it may not.
  bool CheckRegions(const Caller& caller, int device, const std::vector<LaunchRegion>& regions);
  // Null: pageable host memory.
  CopyPath PathOf(const LiveMemory* to, const LiveMemory* from, int64_t bytes);
  // False, and reported: it begins in memory that was allocated here, and isn't all in one live allocation.
  bool KnownEnd(const Caller& caller, const void* data, const LiveMemory* allocation);
  // What a launch does when it runs.
  std::function<cudaError_t()> EffectOf(const KernelLaunch& launch);
  cudaError_t RunThreads(const KernelLaunch& launch, uint64_t seed);
  // The fault that strikes this call, or null.
  const Fault* NextFault(const std::string& call, Fault::Where where);

  const MachineOptions options_;
  Reports reports_;
  mutable std::mutex mutex_;
  CallLog log_;
  OrderCheck order_;
  Allocations memory_;
  PinnedUse pinned_use_;
  Counters counters_;
  std::vector<Device> devices_;
  std::deque<Stream> streams_;
  std::deque<Event> events_;
  std::map<std::string, int64_t> wait_sites_;
  std::map<std::string, int64_t> calls_;           // so far, of those that have faults
  std::map<uint32_t, std::string> library_calls_;  // what they are, by number in log_
  std::unique_ptr<Nccl> nccl_;
  std::unique_ptr<Execution> execution_;  // last: its task uses the rest
};

}  // namespace gpu_sim
