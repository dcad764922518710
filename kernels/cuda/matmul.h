// Products by cuBLASLt, with a cache of what was set up for each shape. Sums are f32 whatever the types; TF32 is off,
// and parts of a sum are never rounded to the result's type.
//
// The algorithm of a shape is that of the choices given, else the library's first guess (the same for the same library
// and GPU), and stays. Measured are they in runs whose numbers don't count (Unchosen::kMeasured).
//
// Threads: any; ownership: one for each device, and it must outlive the work that it issued.
#pragma once

#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>

#include "absl/status/statusor.h"
#include "cublasLt.h"
#include "cuda_runtime.h"
#include "kernels/cuda/matmul_choices.h"
#include "kernels/cuda/workspace.h"

namespace sluice::cuda {

// What NVIDIA advises for Hopper; that much of a workspace is the library's.
inline constexpr int64_t kMatmulWorkspaceBytes = int64_t{32} << 20;

struct MatmulOperands {
  const void* a = nullptr;
  const void* b = nullptr;
  const void* c = nullptr;  // with beta = 1; may be d
  void* d = nullptr;
  void* bias = nullptr;  // read or written, as the epilogue has it
};

// The largest power of two up to 16 that all are multiples of.
int AlignmentOf(std::initializer_list<const void*> pointers);

// What happens to a shape that nothing was chosen for, when it first appears.
enum class Unchosen : uint8_t { kGuessed, kMeasured };

class Matmul {
 public:
  // Of the current device. Errors: FAILED_PRECONDITION if the choices are of another architecture or library (they
  // would be other bits); UNAVAILABLE if cuBLASLt doesn't start.
  static absl::StatusOr<std::unique_ptr<Matmul>> Create(MatmulChoices choices = {},
                                                        Unchosen unchosen = Unchosen::kGuessed);
  ~Matmul();
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;

  // Issues work. Errors: cudaErrorNotSupported for what the library doesn't compute, cudaErrorInvalidValue,
  // cudaErrorLaunchFailure. The first call of a shape sets it up on the host.
  cudaError_t Run(cudaStream_t stream, const MatmulShape& shape, const MatmulOperands& operands,
                  const Workspace& workspace);
  // Whether to use the epilogue of a shape that has one: it is supported, and nothing chosen speaks against it.
  bool Fuses(const MatmulShape& shape);

  // Whether this shape is to be measured, since nothing is known of it yet.
  bool IsToMeasure(const MatmulShape& shape) const;
  // Times the library's candidates on the operands (whose results are lost) and keeps the fastest. Waits for the
  // stream. UNIMPLEMENTED: the library doesn't compute it.
  absl::Status Measure(cudaStream_t stream, const MatmulShape& shape, const MatmulOperands& operands,
                       const Workspace& workspace);
  // Whether an epilogue is taken, as measured by the caller.
  void SetFused(const MatmulShape& shape, bool fused);

  // Those given, measured and guessed so far.
  MatmulChoices choices() const;

 private:
  struct Plan;
  Matmul(cublasLtHandle_t handle, MatmulChoices choices, Unchosen unchosen);
  // Null with the error: the library doesn't compute it. REQUIRES the lock.
  Plan* PlanOf(const MatmulShape& shape, cudaError_t* error);
  absl::Status MeasurePlan(cudaStream_t stream, Plan* plan, const MatmulOperands& operands, const Workspace& workspace);
  cudaError_t RunPlan(cudaStream_t stream, const Plan& plan, const MatmulOperands& operands,
                      const Workspace& workspace);

  const cublasLtHandle_t handle_;
  const Unchosen unchosen_;
  mutable std::mutex mutex_;
  MatmulChoices choices_;
  std::map<MatmulShape, std::unique_ptr<Plan>> plans_;  // null: the library doesn't compute it
};

}  // namespace sluice::cuda
