// cuBLASLt's calls, as the simulated GPU answers them: objects and their attributes, the checks, and products as
// launches that say what they read and write.
#include "tests/gpu_sim/include/cublasLt.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "tests/gpu_sim/matmul.h"
#include "tests/gpu_sim/memory.h"

struct cublasLtContext {};
struct cublasLtMatrixLayoutStruct {
  gpu_sim::MatrixLayout layout;
};
struct cublasLtMatmulDescStruct {
  gpu_sim::MatmulProblem problem;  // without layouts
  void* bias = nullptr;
};
struct cublasLtMatmulPreferenceStruct {
  uint64_t workspace_bytes = 0;
  uint32_t reduction_schemes = ~0u;
  uint32_t alignment_a = 256, alignment_b = 256, alignment_c = 256, alignment_d = 256;
};

namespace gpu_sim {
namespace {

constexpr size_t kVersion = 130100;

template <class T>
cublasStatus_t Take(const void* value, size_t bytes, T* member) {
  if (value == nullptr || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(member, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

template <class Object, class... Arguments>
cublasStatus_t Make(Object** object, Arguments&&... arguments) {
  if (object == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  *object = new Object{std::forward<Arguments>(arguments)...};
  return CUBLAS_STATUS_SUCCESS;
}

template <class Object>
cublasStatus_t Destroy(Object* object) {
  delete object;
  return CUBLAS_STATUS_SUCCESS;
}

bool AllThere(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
              cublasLtMatrixLayout_t d) {
  return desc != nullptr && a != nullptr && b != nullptr && c != nullptr && d != nullptr;
}

MatmulProblem ProblemOf(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                        cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d) {
  MatmulProblem problem = desc->problem;
  problem.a = a->layout, problem.b = b->layout, problem.c = c->layout, problem.d = d->layout;
  return problem;
}

cublasLtMatmulHeuristicResult_t ResultOf(const MatmulProblem& problem, const Algorithm& algorithm) {
  return {.algo = algorithm.Pack(problem),
          .workspaceSize = static_cast<size_t>(algorithm.workspace_bytes),
          .state = CUBLAS_STATUS_SUCCESS,
          .wavesCount = 1,
          .reserved = {}};
}

bool IsAligned(const void* data, uint32_t alignment) { return reinterpret_cast<uintptr_t>(data) % alignment == 0; }

struct Workspace {
  void* data = nullptr;
  size_t bytes = 0;
};

cublasStatus_t CheckCall(const MatmulProblem& problem, const Algorithm& algorithm, const MatmulOperands& on,
                         const Workspace& workspace) {
  if (on.a == nullptr || on.b == nullptr || on.d == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (on.beta != 0 && on.c == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (problem.epilogue != CUBLASLT_EPILOGUE_DEFAULT && on.bias == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (on.c == on.d && problem.c.ld != problem.d.ld) return CUBLAS_STATUS_INVALID_VALUE;
  if (workspace.bytes < static_cast<size_t>(algorithm.workspace_bytes)) return CUBLAS_STATUS_INVALID_VALUE;
  if (algorithm.workspace_bytes > 0 && workspace.data == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (!IsAligned(workspace.data, 16)) return CUBLAS_STATUS_INVALID_VALUE;
  const uint32_t element = static_cast<uint32_t>(SizeOf(problem.d.type));
  for (const void* data : {on.a, on.b, on.beta != 0 ? on.c : on.d, static_cast<const void*>(on.d)}) {
    if (!IsAligned(data, algorithm.alignment)) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return IsAligned(on.bias, element) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

KernelLaunch LaunchOf(const MatmulProblem& problem, const Algorithm& algorithm, const MatmulOperands& on,
                      const Workspace& workspace) {
  KernelLaunch launch{.name = "cublasLtMatmul", .kernel = nullptr, .call = nullptr, .arguments = {}};
  launch.grid = launch.block = dim3(1);
  launch.shared_bytes = 0;
  for (int32_t batch = 0; batch < problem.d.batches; ++batch) {
    launch.reads.push_back(RegionOf(problem.a, on.a, batch));
    launch.reads.push_back(RegionOf(problem.b, on.b, batch));
    if (on.beta != 0) launch.reads.push_back(RegionOf(problem.c, on.c, batch));
    launch.writes.push_back(RegionOf(problem.d, on.d, batch));
  }
  const LaunchRegion bias = {on.bias, problem.bias_elements() * SizeOf(problem.d.type), 1, 0};
  if (problem.epilogue == CUBLASLT_EPILOGUE_BIAS) launch.reads.push_back(bias);
  if (problem.epilogue == CUBLASLT_EPILOGUE_BGRADA || problem.epilogue == CUBLASLT_EPILOGUE_BGRADB) {
    launch.writes.push_back(bias);
  }
  if (algorithm.workspace_bytes > 0) launch.writes.push_back({workspace.data, algorithm.workspace_bytes, 1, 0});
  launch.flops = 2.0 * static_cast<double>(problem.m() * problem.n()) * static_cast<double>(problem.k()) *
                 problem.d.batches * algorithm.time;
  launch.library_call = [problem, algorithm, on] {
    MatmulOperands stored = on;
    stored.a = StorageOf(on.a);
    stored.b = StorageOf(on.b);
    stored.c = StorageOf(on.c);
    stored.d = StorageOf(on.d);
    stored.bias = StorageOf(on.bias);
    Compute(problem, algorithm, stored);
    return cudaSuccess;
  };
  return launch;
}

cublasStatus_t StatusOf(cudaError_t error) {
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace
}  // namespace gpu_sim

using namespace gpu_sim;  // NOLINT: the calls stand outside

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) { return Make(handle); }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  return handle == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : Destroy(handle);
}
size_t cublasLtGetVersion() { return kVersion; }

const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR:
      return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR:
      return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "unknown";
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
  return Make(
      layout,
      MatrixLayout{
          .type = type, .rows = static_cast<int64_t>(rows), .columns = static_cast<int64_t>(columns), .ld = ld});
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return Destroy(layout); }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t what,
                                                const void* value, size_t bytes) {
  if (layout == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  switch (what) {
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return Take(value, bytes, &layout->layout.order);
    case CUBLASLT_MATRIX_LAYOUT_LD:
      return Take(value, bytes, &layout->layout.ld);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return Take(value, bytes, &layout->layout.batches);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return Take(value, bytes, &layout->layout.batch_stride);
    default:
      return CUBLAS_STATUS_INVALID_VALUE;
  }
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType scale) {
  return Make(desc, MatmulProblem{.compute = compute, .scale = scale});
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) { return Destroy(desc); }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t what,
                                              const void* value, size_t bytes) {
  if (desc == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return Take(value, bytes, &desc->problem.op_a);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return Take(value, bytes, &desc->problem.op_b);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return Take(value, bytes, &desc->problem.epilogue);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return Take(value, bytes, &desc->bias);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) { return Make(preference); }
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return Destroy(preference); }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t what, const void* value,
                                                    size_t bytes) {
  if (preference == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  switch (what) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return Take(value, bytes, &preference->workspace_bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return Take(value, bytes, &preference->reduction_schemes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return Take(value, bytes, &preference->alignment_a);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return Take(value, bytes, &preference->alignment_b);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return Take(value, bytes, &preference->alignment_c);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return Take(value, bytes, &preference->alignment_d);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* returned) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!AllThere(desc, a, b, c, d) || preference == nullptr || results == nullptr || returned == nullptr ||
      requested < 1) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  *returned = 0;
  const MatmulProblem problem = ProblemOf(desc, a, b, c, d);
  if (const cublasStatus_t status = Check(problem); status != CUBLAS_STATUS_SUCCESS) return status;
  const uint32_t alignment =
      std::min({preference->alignment_a, preference->alignment_b, preference->alignment_c, preference->alignment_d});
  for (const Algorithm& algorithm : Algorithms(problem, static_cast<int64_t>(preference->workspace_bytes), alignment)) {
    if (algorithm.splits > 1 && (preference->reduction_schemes & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) == 0) continue;
    if (*returned < requested) results[(*returned)++] = ResultOf(problem, algorithm);
  }
  return *returned > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algo, cublasLtMatmulHeuristicResult_t* result) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!AllThere(desc, a, b, c, d) || algo == nullptr || result == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  const MatmulProblem problem = ProblemOf(desc, a, b, c, d);
  if (const cublasStatus_t status = Check(problem); status != CUBLAS_STATUS_SUCCESS) return status;
  Algorithm algorithm;
  if (!Unpack(problem, *algo, &algorithm)) return CUBLAS_STATUS_NOT_SUPPORTED;
  *result = ResultOf(problem, algorithm);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream, std::source_location site) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!AllThere(desc, a_layout, b_layout, c_layout, d_layout) || alpha == nullptr || beta == nullptr) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const MatmulProblem problem = ProblemOf(desc, a_layout, b_layout, c_layout, d_layout);
  if (const cublasStatus_t status = Check(problem); status != CUBLAS_STATUS_SUCCESS) return status;
  Algorithm algorithm;
  if (algo == nullptr) {  // the library's own first guess
    algorithm = Algorithms(problem, static_cast<int64_t>(workspace_bytes), 256).front();
  } else if (!Unpack(problem, *algo, &algorithm)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const MatmulOperands operands{.alpha = *static_cast<const float*>(alpha),
                                .beta = *static_cast<const float*>(beta),
                                .a = a,
                                .b = b,
                                .c = c,
                                .d = d,
                                .bias = desc->bias};
  const Workspace scratch{workspace, workspace_bytes};
  if (const cublasStatus_t status = CheckCall(problem, algorithm, operands, scratch); status != CUBLAS_STATUS_SUCCESS) {
    return status;
  }
  KernelLaunch launch = LaunchOf(problem, algorithm, operands, scratch);
  launch.stream = stream;
  launch.site = site;
  return StatusOf(Launch(std::move(launch)));
}
