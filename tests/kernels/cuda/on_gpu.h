// Runs launchers on tensors of a test: copies a tensor to the GPU when it is first used, and all of them back at the
// end. Each has an allocation of its very size, so that a simulated GPU sees accesses beyond it.
#pragma once

#include <cstring>
#include <list>
#include <string>

#include "cuda_runtime.h"
#include "gtest/gtest.h"
#include "kernels/cuda/workspace.h"
#include "tests/kernels/cuda/test_gpu.h"
#include "tests/kernels/test_tensor.h"

namespace sluice::cuda {

inline void Succeed(cudaError_t error) { ASSERT_EQ(error, cudaSuccess) << cudaGetErrorString(error); }

// Whether tensors lie on multiples of 256 bytes, or one element behind.
enum class Placement : uint8_t { kAligned, kShifted };

class OnGpu {
 public:
  explicit OnGpu(Placement placement = Placement::kAligned) : gpu_(NewTestGpu()), placement_(placement) {
    Succeed(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~OnGpu() {
    for (const Copy& copy : copies_) {
      Succeed(cudaFree(copy.allocation));
      Succeed(cudaFreeHost(copy.staging));
    }
    for (std::byte* data : scratch_) Succeed(cudaFree(data));
    Succeed(cudaStreamDestroy(stream_));
    EXPECT_EQ(gpu_->Faults(), "");
  }
  OnGpu(const OnGpu&) = delete;
  OnGpu& operator=(const OnGpu&) = delete;

  cudaStream_t stream() const { return stream_; }

  // The tensor on the GPU; the same for the same tensor, whose bits it has when it is first named.
  TensorView operator()(TestTensor& tensor) {
    for (const Copy& copy : copies_) {
      if (copy.tensor == &tensor) return copy.view;
    }
    Copy copy{.tensor = &tensor, .view = tensor.view()};
    const int64_t shift = placement_ == Placement::kShifted ? SizeOf(tensor.dtype()) : 0;
    Succeed(cudaMalloc(&copy.allocation, shift + copy.view.bytes() + (copy.view.bytes() == 0)));
    Succeed(cudaMallocHost(&copy.staging, copy.view.bytes() + 1));
    copy.view.data = copy.allocation + shift;
    std::memcpy(copy.staging, tensor.view().data, copy.view.bytes());
    Succeed(cudaMemcpyAsync(copy.view.data, copy.staging, copy.view.bytes(), cudaMemcpyHostToDevice, stream_));
    copies_.push_back(copy);
    return copy.view;
  }

  // Of this very size, never written.
  Workspace Scratch(int64_t bytes) {
    std::byte* data = nullptr;
    Succeed(cudaMalloc(&data, bytes));
    scratch_.push_back(data);
    return {data, bytes};
  }

  // Waits, and takes the results into the tensors. `issued` is what the launcher returned.
  void Finish(cudaError_t issued) {
    Succeed(issued);
    for (const Copy& copy : copies_) {
      Succeed(cudaMemcpyAsync(copy.staging, copy.view.data, copy.view.bytes(), cudaMemcpyDeviceToHost, stream_));
    }
    Succeed(cudaStreamSynchronize(stream_));
    for (const Copy& copy : copies_) std::memcpy(copy.tensor->view().data, copy.staging, copy.view.bytes());
  }

 private:
  struct Copy {
    TestTensor* tensor = nullptr;
    std::byte* allocation = nullptr;
    std::byte* staging = nullptr;
    TensorView view;
  };

  std::unique_ptr<TestGpu> gpu_;
  Placement placement_;
  cudaStream_t stream_ = nullptr;
  std::list<Copy> copies_;
  std::list<std::byte*> scratch_;
};

// Odd shapes, rows of whole packs and others, several groups of rows, rows that a whole block works on. A simulated
// GPU runs some hundred million operations a second, so they are small.
inline std::vector<MatrixCase> GpuMatrixCases() {
  std::vector<MatrixCase> cases;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {3, 1}, {2, 7}, {7, 17}, {5, 8}, {6, 264}, {33, 100}, {70, 65}, {130, 64}, {2, 16504}}) {
      cases.push_back({rows, columns, dtype});
    }
  }
  return cases;
}

}  // namespace sluice::cuda
