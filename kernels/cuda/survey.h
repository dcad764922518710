// What GPUs this machine has, and why none is used where that is so. For programs that may have been built without
// CUDA: nothing here needs its headers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace sluice::cuda {

inline constexpr int kComputeCapabilityMin = 8;  // bf16 on tensor cores

struct GpuInfo {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  int64_t memory_bytes = 0, free_bytes = 0;
  std::string pci_bus;
  std::vector<int> peers;  // GPUs whose memory it reaches directly
  absl::Status usable;     // else why not
};

struct GpuSurvey {
  absl::Status found;  // else why there is none, with a remedy: not built in, no driver, too old a driver, no GPU
  // As CUDA counts: 13000 is 13.0; 0: none.
  int driver_version = 0;   // newest CUDA that the driver can run
  int runtime_version = 0;  // that this program was built with
  int64_t cublaslt_version = 0;
  std::vector<GpuInfo> gpus;
};

// Starts CUDA for each GPU, which takes some of its memory until the program ends.
GpuSurvey SurveyGpus();

// "13.0"
std::string CudaVersion(int version);

}  // namespace sluice::cuda
