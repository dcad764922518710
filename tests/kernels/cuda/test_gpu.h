// The GPU that tests of kernels run on: a real one (real_gpu.cc), or the simulated one, by every CUDA thread
// (every_thread_gpu.cc) or by the kernels' bodies on the CPU (bodies_gpu.cc). The tests are the same.
#pragma once

#include <memory>
#include <string>

namespace sluice::cuda {

class TestGpu {
 public:
  virtual ~TestGpu() = default;
  // What the simulator has to say against the work so far: races, reads of what was never written, accesses outside of
  // what a launch declared. Empty: nothing.
  virtual std::string Faults() = 0;
};

std::unique_ptr<TestGpu> NewTestGpu();

}  // namespace sluice::cuda
