// A product as cuBLASLt describes it, as plain values: what of it is wrong, which algorithms could compute it, and its
// result. Column-major: element (i, j) of a matrix lies at i + j * ld. Pure, but for the choice of arithmetic.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/gpu_sim/include/cublasLt.h"
#include "tests/gpu_sim/include/gpu_sim_launch.h"

namespace gpu_sim {

struct MatrixLayout {
  cudaDataType type = CUDA_R_32F;
  int64_t rows = 0, columns = 0, ld = 0;
  int32_t order = 0;  // column-major; others are refused
  int32_t batches = 1;
  int64_t batch_stride = 0;
};

// d = alpha * op(a) op(b) + beta * c (+ bias per row), and with BGRADA or BGRADB the sums of op(a)'s rows or op(b)'s
// columns, in `bias`.
struct MatmulProblem {
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  cudaDataType scale = CUDA_R_32F;
  cublasOperation_t op_a = CUBLAS_OP_N, op_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  MatrixLayout a, b, c, d;

  int64_t m() const { return d.rows; }
  int64_t n() const { return d.columns; }
  int64_t k() const { return op_a == CUBLAS_OP_N ? a.columns : a.rows; }
  int64_t bias_elements() const { return epilogue == CUBLASLT_EPILOGUE_BGRADB ? n() : m(); }
};

// INVALID_VALUE for what makes no sense (shapes, too small ld), NOT_SUPPORTED for what the library doesn't compute.
cublasStatus_t Check(const MatmulProblem& problem);

// How a product is computed. Their results differ in the last bits, as the real library's algorithms do.
struct Algorithm {
  int id = 0;
  int splits = 1;               // of the k sums, added in f32
  uint32_t alignment = 2;       // of each matrix, of its columns too: in bytes
  int64_t workspace_bytes = 0;  // for the parts
  double time = 1;              // against the fastest there could be
  cublasLtMatmulAlgo_t Pack(const MatmulProblem& problem) const;
};
// The fastest (so it is guessed) first, those that need no more than is there. REQUIRES: Check() is SUCCESS.
std::vector<Algorithm> Algorithms(const MatmulProblem& problem, int64_t workspace_bytes, uint32_t alignment);
// False if the bytes are not an algorithm of a product like this one.
bool Unpack(const MatmulProblem& problem, const cublasLtMatmulAlgo_t& bytes, Algorithm* algorithm);

// Host addresses.
struct MatmulOperands {
  float alpha = 1, beta = 0;
  const void* a = nullptr;
  const void* b = nullptr;
  const void* c = nullptr;  // not read if beta is 0
  void* d = nullptr;
  void* bias = nullptr;
};

// What sums are kept in: double, the reference; or f32, for whole jobs, some times as fast.
enum class MatmulArithmetic : uint8_t { kDouble, kFloat };
void SetMatmulArithmetic(MatmulArithmetic arithmetic);  // of the process; kDouble at its start

void Compute(const MatmulProblem& problem, const Algorithm& algorithm, const MatmulOperands& operands);

int64_t SizeOf(cudaDataType type);
// The bytes of one matrix of a layout's batch.
LaunchRegion RegionOf(const MatrixLayout& layout, const void* data, int32_t batch);

}  // namespace gpu_sim
