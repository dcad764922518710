#include "kernels/cuda/matmul.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/cuda/stopwatch.h"

namespace sluice::cuda {
namespace {

constexpr int kCandidates = 8;
constexpr int kRepeats = 5;

cudaDataType TypeOf(DType type) { return type == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }
cublasOperation_t OperationOf(Transpose transpose) { return transpose == Transpose::kYes ? CUBLAS_OP_T : CUBLAS_OP_N; }

cublasLtEpilogue_t EpilogueOf(Epilogue epilogue) {
  switch (epilogue) {
    case Epilogue::kNone:
      return CUBLASLT_EPILOGUE_DEFAULT;
    case Epilogue::kBias:
      return CUBLASLT_EPILOGUE_BIAS;
    case Epilogue::kBiasGradient:
      return CUBLASLT_EPILOGUE_BGRADB;
  }
  return CUBLASLT_EPILOGUE_DEFAULT;
}

cudaError_t ErrorOf(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return cudaSuccess;
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return cudaErrorNotSupported;
    case CUBLAS_STATUS_INVALID_VALUE:
      return cudaErrorInvalidValue;
    case CUBLAS_STATUS_ALLOC_FAILED:
      return cudaErrorMemoryAllocation;
    default:
      return cudaErrorLaunchFailure;
  }
}

// For calls that only fail on arguments that are never given.
void Must(cublasStatus_t status) { CHECK_EQ(status, CUBLAS_STATUS_SUCCESS) << cublasLtGetStatusName(status); }

absl::StatusOr<std::string> Architecture() {
  int device = 0, major = 0, minor = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (error != cudaSuccess) return absl::UnavailableError(absl::StrCat("no GPU: ", cudaGetErrorString(error)));
  return absl::StrCat("sm_", major, minor);
}

void Take(const cublasLtMatmulHeuristicResult_t& result, MatmulChoice* choice) {
  std::memcpy(choice->algorithm.data(), result.algo.data, sizeof(choice->algorithm));
  choice->workspace_bytes = static_cast<int64_t>(result.workspaceSize);
}

// UNIMPLEMENTED: the library doesn't compute it.
absl::Status NotMeasured(const MatmulShape& shape, cudaError_t error) {
  const auto code = error == cudaErrorNotSupported ? absl::StatusCode::kUnimplemented : absl::StatusCode::kInternal;
  return absl::Status(code, absl::StrCat("cublasLtMatmul ", ToText(shape), ": ", cudaGetErrorString(error)));
}

}  // namespace

int AlignmentOf(std::initializer_list<const void*> pointers) {
  uintptr_t bits = 16;
  for (const void* pointer : pointers) bits |= reinterpret_cast<uintptr_t>(pointer);
  return static_cast<int>(bits & -bits);
}

// The library's descriptions of a shape, and the algorithm.
struct Matmul::Plan {
  explicit Plan(const MatmulShape& of) : shape(of) {
    Must(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t op_a = OperationOf(shape.transpose_a), op_b = OperationOf(shape.transpose_b);
    const cublasLtEpilogue_t epilogue = EpilogueOf(shape.epilogue);
    Set(CUBLASLT_MATMUL_DESC_TRANSA, op_a);
    Set(CUBLASLT_MATMUL_DESC_TRANSB, op_b);
    Set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    const bool a_plain = shape.transpose_a == Transpose::kNo, b_plain = shape.transpose_b == Transpose::kNo;
    Must(cublasLtMatrixLayoutCreate(&a, TypeOf(shape.in), a_plain ? shape.m : shape.k, a_plain ? shape.k : shape.m,
                                    shape.lda));
    Must(cublasLtMatrixLayoutCreate(&b, TypeOf(shape.in), b_plain ? shape.k : shape.n, b_plain ? shape.n : shape.k,
                                    shape.ldb));
    Must(cublasLtMatrixLayoutCreate(&d, TypeOf(shape.out), shape.m, shape.n, shape.ldd));
  }
  ~Plan() {
    Must(cublasLtMatrixLayoutDestroy(d));
    Must(cublasLtMatrixLayoutDestroy(b));
    Must(cublasLtMatrixLayoutDestroy(a));
    Must(cublasLtMatmulDescDestroy(desc));
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  template <class T>
  void Set(cublasLtMatmulDescAttributes_t what, const T& value) const {
    Must(cublasLtMatmulDescSetAttribute(desc, what, &value, sizeof(value)));
  }
  std::vector<cublasLtMatmulHeuristicResult_t> Candidates(cublasLtHandle_t handle, int count) const;
  // The fastest first, so the library guesses.
  bool Guess(cublasLtHandle_t handle, MatmulChoice* choice) const;
  bool Allows(cublasLtHandle_t handle, const MatmulChoice& choice) const;

  const MatmulShape shape;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
  MatmulChoice choice;
};

std::vector<cublasLtMatmulHeuristicResult_t> Matmul::Plan::Candidates(cublasLtHandle_t handle, int count) const {
  cublasLtMatmulPreference_t preference = nullptr;
  Must(cublasLtMatmulPreferenceCreate(&preference));
  const absl::Cleanup destroy = [preference] { Must(cublasLtMatmulPreferenceDestroy(preference)); };
  const auto set = [preference](cublasLtMatmulPreferenceAttributes_t what, auto value) {
    Must(cublasLtMatmulPreferenceSetAttribute(preference, what, &value, sizeof(value)));
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kMatmulWorkspaceBytes});
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  for (const auto what : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(what, static_cast<uint32_t>(shape.alignment));
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(count);
  int found = 0;
  if (cublasLtMatmulAlgoGetHeuristic(handle, desc, a, b, d, d, preference, count, results.data(), &found) !=
      CUBLAS_STATUS_SUCCESS) {
    found = 0;
  }
  results.resize(found);
  std::erase_if(results, [](const auto& result) { return result.state != CUBLAS_STATUS_SUCCESS; });
  return results;
}

bool Matmul::Plan::Guess(cublasLtHandle_t handle, MatmulChoice* guess) const {
  const std::vector<cublasLtMatmulHeuristicResult_t> results = Candidates(handle, 1);
  if (results.empty()) return false;
  Take(results[0], guess);
  return true;
}

bool Matmul::Plan::Allows(cublasLtHandle_t handle, const MatmulChoice& given) const {
  cublasLtMatmulAlgo_t algorithm;
  std::memcpy(algorithm.data, given.algorithm.data(), sizeof(algorithm.data));
  cublasLtMatmulHeuristicResult_t result;
  return cublasLtMatmulAlgoCheck(handle, desc, a, b, d, d, &algorithm, &result) == CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize <= static_cast<size_t>(given.workspace_bytes);
}

Matmul::Matmul(cublasLtHandle_t handle, MatmulChoices choices, Unchosen unchosen)
    : handle_(handle), unchosen_(unchosen), choices_(std::move(choices)) {}

Matmul::~Matmul() {
  plans_.clear();
  Must(cublasLtDestroy(handle_));
}

absl::StatusOr<std::unique_ptr<Matmul>> Matmul::Create(MatmulChoices choices, Unchosen unchosen) {
  absl::StatusOr<std::string> architecture = Architecture();
  if (!architecture.ok()) return architecture.status();
  const auto version = static_cast<int64_t>(cublasLtGetVersion());
  if (!choices.of.empty() && (choices.architecture != *architecture || choices.library_version != version)) {
    return absl::FailedPreconditionError(
        absl::StrCat("algorithms were chosen for ", choices.architecture, " and cuBLASLt ", choices.library_version,
                     ", and this is ", *architecture, " with ", version, ": choose them anew for this machine"));
  }
  choices.architecture = *std::move(architecture);
  choices.library_version = version;
  cublasLtHandle_t handle = nullptr;
  if (const cublasStatus_t status = cublasLtCreate(&handle); status != CUBLAS_STATUS_SUCCESS) {
    return absl::UnavailableError(absl::StrCat("cublasLtCreate: ", cublasLtGetStatusName(status)));
  }
  return std::unique_ptr<Matmul>(new Matmul(handle, std::move(choices), unchosen));
}

Matmul::Plan* Matmul::PlanOf(const MatmulShape& shape, cudaError_t* error) {
  const auto [place, is_first] = plans_.try_emplace(shape);
  if (!is_first) {
    if (place->second == nullptr) *error = cudaErrorNotSupported;
    return place->second.get();
  }
  auto made = std::make_unique<Plan>(shape);
  const auto [choice, is_new] = choices_.of.try_emplace(shape);
  if (is_new && !made->Guess(handle_, &choice->second)) {
    choices_.of.erase(choice);
    *error = cudaErrorNotSupported;
    return nullptr;
  }
  if (!is_new && !made->Allows(handle_, choice->second)) {
    *error = cudaErrorNotSupported;  // not an algorithm of this shape: the text was changed
    return nullptr;
  }
  made->choice = choice->second;
  place->second = std::move(made);
  return place->second.get();
}

cudaError_t Matmul::RunPlan(cudaStream_t stream, const Plan& plan, const MatmulOperands& operands,
                            const Workspace& workspace) {
  if (plan.shape.epilogue != Epilogue::kNone) plan.Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias);
  cublasLtMatmulAlgo_t algorithm;
  std::memcpy(algorithm.data, plan.choice.algorithm.data(), sizeof(algorithm.data));
  const float alpha = 1, beta = static_cast<float>(plan.shape.beta);
  const void* const c = plan.shape.beta == 0 ? operands.d : operands.c;
  return ErrorOf(cublasLtMatmul(handle_, plan.desc, &alpha, operands.a, plan.a, operands.b, plan.b, &beta, c, plan.d,
                                operands.d, plan.d, &algorithm, workspace.data,
                                static_cast<size_t>(std::min(workspace.bytes, kMatmulWorkspaceBytes)), stream));
}

cudaError_t Matmul::Run(cudaStream_t stream, const MatmulShape& shape, const MatmulOperands& operands,
                        const Workspace& workspace) {
  const std::lock_guard lock(mutex_);
  cudaError_t error = cudaSuccess;
  const bool to_measure = unchosen_ == Unchosen::kMeasured && choices_.of.count(shape) == 0;
  Plan* const plan = PlanOf(shape, &error);
  if (plan == nullptr) return error;
  if (to_measure && !MeasurePlan(stream, plan, operands, workspace).ok()) return cudaErrorUnknown;
  return RunPlan(stream, *plan, operands, workspace);
}

bool Matmul::IsToMeasure(const MatmulShape& shape) const {
  const std::lock_guard lock(mutex_);
  return unchosen_ == Unchosen::kMeasured && choices_.of.count(shape) == 0 && plans_.count(shape) == 0;
}

absl::Status Matmul::Measure(cudaStream_t stream, const MatmulShape& shape, const MatmulOperands& operands,
                             const Workspace& workspace) {
  const std::lock_guard lock(mutex_);
  cudaError_t error = cudaSuccess;
  Plan* const plan = PlanOf(shape, &error);
  return plan == nullptr ? NotMeasured(shape, error) : MeasurePlan(stream, plan, operands, workspace);
}

absl::Status Matmul::MeasurePlan(cudaStream_t stream, Plan* plan, const MatmulOperands& operands,
                                 const Workspace& workspace) {
  float best = std::numeric_limits<float>::max();
  MatmulChoice fastest = plan->choice;
  for (const cublasLtMatmulHeuristicResult_t& candidate : plan->Candidates(handle_, kCandidates)) {
    Take(candidate, &plan->choice);
    float milliseconds = 0;
    Stopwatch stopwatch(stream);
    const cudaError_t error = stopwatch.Time(
        kRepeats, [&] { return RunPlan(stream, *plan, operands, workspace); }, &milliseconds);
    if (error != cudaSuccess && error != cudaErrorNotSupported) return NotMeasured(plan->shape, error);
    if (error != cudaSuccess || milliseconds >= best) continue;
    best = milliseconds;
    fastest = plan->choice;
  }
  plan->choice = choices_.of[plan->shape] = fastest;
  return absl::OkStatus();
}

bool Matmul::Fuses(const MatmulShape& shape) {
  const std::lock_guard lock(mutex_);
  cudaError_t error = cudaSuccess;
  const Plan* const plan = PlanOf(shape, &error);
  return plan != nullptr && plan->choice.fused != 0;
}

void Matmul::SetFused(const MatmulShape& shape, bool fused) {
  const std::lock_guard lock(mutex_);
  cudaError_t error = cudaSuccess;
  Plan* const plan = PlanOf(shape, &error);
  if (plan == nullptr) return;
  plan->choice.fused = choices_.of[shape].fused = fused ? 1 : 0;
}

MatmulChoices Matmul::choices() const {
  const std::lock_guard lock(mutex_);
  return choices_;
}

}  // namespace sluice::cuda
