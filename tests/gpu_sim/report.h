// What a program did wrong on the simulated GPU. Threads: any.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace gpu_sim {

enum class ReportKind : uint8_t {
  kRace,           // two accesses, one of them a write, that nothing orders
  kNeverWritten,   // device memory read before anything wrote it
  kFreedInUse,     // memory freed while work on it had not ended as far as the host knew
  kRegion,         // outside of live memory, or of a device without peer access
  kDefaultStream,  // stream 0
  kPageable,       // an asynchronous copy of pageable memory
  kNeverRecorded,  // a wait for an event that was never recorded
  kHandle,         // a stream or an event after it was destroyed
  kHostAccess,     // host code touched device memory, or pinned memory that a copy was using
  kKernel,         // inside of a kernel (kernel_run.h)
  kMismatch,       // the two ends of a transfer, or a collective's members, don't fit together
  kUsage,          // NCCL called against its rules
  kDeadlock,       // streams that wait for one another in a circle
};

struct Report {
  ReportKind kind = ReportKind::kRace;
  std::string text;
  int64_t times = 1;
};

// Equal texts count as one.
class Reports {
 public:
  void Add(ReportKind kind, std::string text);
  std::vector<Report> all() const;

 private:
  mutable std::mutex mutex_;
  std::vector<Report> reports_;
};

}  // namespace gpu_sim
