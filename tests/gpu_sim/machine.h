// A machine with simulated GPUs, which answers the runtime's calls (include/cuda_runtime.h) while it lives. It runs
// what the calls issue, in an order that the seed chooses among those that CUDA permits, and collects what a program
// does wrong:
// - accesses to the same memory that nothing orders, named with both calls (order_check.h)
// - reading device memory that was never written; freeing memory in use; regions outside of memory or of another device
// - calls that wait for the device without saying so: stream 0, asynchronous copies of pageable memory
// - waits for events that were never recorded; handles used after they were destroyed
// - ends of NCCL's transfers that don't fit together, calls against its rules, circles of streams that wait for one
//   another.
// Errors that the real runtime answers come back as its codes.
//
// One at a time in a process. In tests its time is a SimWorld's; a program without a test gets a machine from the
// environment variable GPU_SIM (environment.cc). It must not outlive its world.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/world.h"
#include "tests/gpu_sim/device_description.h"
#include "tests/gpu_sim/execution.h"
#include "tests/gpu_sim/include/nccl.h"
#include "tests/gpu_sim/report.h"

namespace gpu_sim {

class BarrierPower;
class Driver;

// How launches of kernels run.
enum class Fidelity : uint8_t {
  kBodies,       // by the CPU code registered for the kernel's name (bodies.h); every thread where none is
  kEveryThread,  // every CUDA thread
};

// A call that fails on demand.
struct Fault {
  enum class Where : uint8_t {
    kCall,       // the call answers `error` and does nothing
    kExecution,  // it succeeds, and what it issued fails when it runs: the device is lost
  };
  std::string call;  // "cudaMemcpyAsync", or the name of a kernel
  int64_t at = 0;    // the n-th such call, from 0
  cudaError_t error = cudaErrorUnknown;
  Where where = Where::kCall;
};

// What goes wrong in NCCL on demand, from a call of a device's rank on.
struct NcclFault {
  enum class Kind : uint8_t {
    kDies,    // all its calls fail, and it takes part in nothing; the others hear ncclRemoteError after `delay`
    kStalls,  // it takes part in nothing, and nobody hears of it
    kSlows,   // what it takes part in takes `factor` times as long
    kErrs,    // the call succeeds, and after `delay` its communicator has `error`
  };
  Kind kind = Kind::kDies;
  int device = 0;
  int64_t at = 0;  // the n-th call that names a communicator of this device, from 0 (Machine::nccl_calls)
  sluice::Nanoseconds delay = 0;
  double factor = 1;
  ncclResult_t error = ncclSystemError;
};

struct MachineOptions {
  sluice::World* world = nullptr;
  int devices = 1;
  DeviceDescription device = H100();
  int64_t memory_limit = 0;  // bytes of each device; 0: the description's
  bool peer_access = true;   // whether devices can reach each other's memory
  uint64_t seed = 1;
  Fidelity fidelity = Fidelity::kBodies;
  Timing timing = Timing::kSeeded;
  // Of a launch, for Timing::kModelled; null: by the device's description.
  std::function<Nanoseconds(const KernelLaunch& launch)> kernel_time;
  std::vector<Fault> faults;
  std::vector<NcclFault> nccl_faults;
  // Of each device only one command of NCCL runs at a time, in the order of their calls.
  bool nccl_one_at_a_time = false;
  // The power of the checks: what groups hold is issued call by call.
  bool nccl_groups_left_out = false;
  // The power of the checks: the wait at this site (Machine::wait_sites()) is left out wherever it is reached.
  std::string wait_left_out;
  // With kEveryThread: launches run through it. It outlives the machine.
  BarrierPower* barrier_power = nullptr;
  int stack_depth = 0;  // callers that a call's site names; waits have kWaitStackDepth
};

// Calls so far.
struct Counters {
  int64_t device_allocations = 0;
  int64_t host_allocations = 0;
  int64_t created = 0;           // streams and events
  int64_t synchronisations = 0;  // calls that wait for the device, or may
  int64_t launches = 0;
  int64_t copies = 0;
  int64_t waits = 0;         // of streams for events
  int64_t device_bytes = 0;  // held now, on all devices
  friend bool operator==(const Counters&, const Counters&) = default;
};

class Machine {
 public:
  explicit Machine(MachineOptions options);
  ~Machine();  // runs what has been issued to its end
  std::vector<Report> reports() const;
  // Their texts, a line each; empty if there is none.
  std::string ReportText() const;
  Counters counters() const;
  // Of NCCL with a communicator of this device, joining included.
  int64_t nccl_calls(int device) const;
  // Where streams wait for events: each place of the code, with its callers, once.
  std::vector<std::string> wait_sites() const;
  // What ran in which order at which times: equal for equal seeds.
  uint64_t trace_hash() const;

 private:
  const std::unique_ptr<Driver> driver_;
};

}  // namespace gpu_sim
