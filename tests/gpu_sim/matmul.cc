#include "tests/gpu_sim/matmul.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <type_traits>

namespace gpu_sim {
namespace {

std::atomic<MatmulArithmetic> chosen_arithmetic{MatmulArithmetic::kDouble};

constexpr uint64_t kMagic = 0x736c75696365'6d6dULL;  // "sluicemm"

uint64_t Mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0x9E3779B97F4A7C15ULL;
  return hash ^ hash >> 29;
}

// What an algorithm is bound to: sizes, types, transposes, epilogue.
uint64_t HashOf(const MatmulProblem& problem) {
  uint64_t hash = 1;
  for (const MatrixLayout* layout : {&problem.a, &problem.b, &problem.c, &problem.d}) {
    hash = Mix(hash, layout->type);
    hash = Mix(hash, layout->rows);
    hash = Mix(hash, layout->columns);
    hash = Mix(hash, layout->ld);
    hash = Mix(hash, layout->batches);
  }
  return Mix(Mix(Mix(hash, problem.op_a), problem.op_b), problem.epilogue);
}

bool IsPossible(const MatrixLayout& layout) {
  return layout.rows > 0 && layout.columns > 0 && layout.ld >= layout.rows && layout.batches > 0 &&
         SizeOf(layout.type) > 0;
}

bool AreTypesSupported(const MatmulProblem& p) {
  if (p.compute != CUBLAS_COMPUTE_32F && p.compute != CUBLAS_COMPUTE_32F_PEDANTIC) return false;
  if (p.scale != CUDA_R_32F || p.a.type != p.b.type || p.c.type != p.d.type) return false;
  if (p.a.type == CUDA_R_16BF) return p.d.type == CUDA_R_16BF || p.d.type == CUDA_R_32F;
  return p.a.type == CUDA_R_32F && p.d.type == CUDA_R_32F;
}

// The largest power of two up to `most` that columns begin at multiples of, whatever the matrix's own address.
uint32_t ColumnAlignment(const MatrixLayout& layout, uint32_t most) {
  const int64_t bytes = layout.columns > 1 ? layout.ld * SizeOf(layout.type) : most;
  return std::min<uint32_t>(most, bytes & -bytes);
}

float Load(const void* data, cudaDataType type, int64_t index) {
  if (type == CUDA_R_32F) return static_cast<const float*>(data)[index];
  return std::bit_cast<float>(uint32_t{static_cast<const uint16_t*>(data)[index]} << 16);
}

void Store(float value, cudaDataType type, void* data, int64_t index) {
  if (type == CUDA_R_32F) {
    static_cast<float*>(data)[index] = value;
    return;
  }
  const auto bits = std::bit_cast<uint32_t>(value);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  static_cast<uint16_t*>(data)[index] =
      static_cast<uint16_t>((nan ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// op(matrix), its rows one after another: [rows][columns].
std::vector<float> Gather(const MatrixLayout& layout, cublasOperation_t op, const void* data) {
  std::vector<float> values(layout.rows * layout.columns);
  for (int64_t j = 0; j < layout.columns; ++j) {
    for (int64_t i = 0; i < layout.rows; ++i) {
      const int64_t to = op == CUBLAS_OP_N ? i * layout.columns + j : j * layout.rows + i;
      values[to] = Load(data, layout.type, i + j * layout.ld);
    }
  }
  return values;
}

// Row `i` of op(a) op(b), the sum over k in `splits` parts.
template <class Sum>
void MultiplyRow(const float* a_row, const float* b, int64_t n, int64_t k, int splits, std::vector<Sum>* part,
                 std::vector<float>* row) {
  std::fill(row->begin(), row->end(), 0.0f);
  for (int split = 0; split < splits; ++split) {
    std::fill(part->begin(), part->end(), Sum{0});
    for (int64_t l = split * k / splits; l < (split + 1) * k / splits; ++l) {
      const Sum scale = a_row[l];
      const float* b_row = b + l * n;
      for (int64_t j = 0; j < n; ++j) (*part)[j] += scale * static_cast<Sum>(b_row[j]);
    }
    for (int64_t j = 0; j < n; ++j) (*row)[j] += static_cast<float>((*part)[j]);
  }
}

template <class Sum>
void ComputeOne(const MatmulProblem& p, const Algorithm& algorithm, const MatmulOperands& on) {
  const int64_t m = p.m(), n = p.n(), k = p.k();
  const std::vector<float> a = Gather(p.a, p.op_a, on.a), b = Gather(p.b, p.op_b, on.b);
  std::vector<Sum> part(n);
  std::vector<float> row(n);
  for (int64_t i = 0; i < m; ++i) {
    MultiplyRow(a.data() + i * k, b.data(), n, k, algorithm.splits, &part, &row);
    const float bias = p.epilogue == CUBLASLT_EPILOGUE_BIAS ? Load(on.bias, p.d.type, i) : 0.0f;
    for (int64_t j = 0; j < n; ++j) {
      float value = on.alpha * row[j];
      if (on.beta != 0) value += on.beta * Load(on.c, p.c.type, i + j * p.c.ld);
      Store(value + bias, p.d.type, on.d, i + j * p.d.ld);
    }
  }
  if (p.epilogue == CUBLASLT_EPILOGUE_BGRADA || p.epilogue == CUBLASLT_EPILOGUE_BGRADB) {
    const bool of_a = p.epilogue == CUBLASLT_EPILOGUE_BGRADA;
    for (int64_t i = 0; i < p.bias_elements(); ++i) {
      Sum sum = 0;
      for (int64_t l = 0; l < k; ++l) sum += of_a ? a[i * k + l] : b[l * n + i];
      Store(static_cast<float>(sum), p.d.type, on.bias, i);
    }
  }
}

template <class T>
T* Offset(T* data, const MatrixLayout& layout, int32_t batch) {
  using Byte = std::conditional_t<std::is_const_v<T>, const std::byte, std::byte>;
  return data == nullptr
             ? data
             : static_cast<T*>(static_cast<Byte*>(data) + batch * layout.batch_stride * SizeOf(layout.type));
}

}  // namespace

int64_t SizeOf(cudaDataType type) { return type == CUDA_R_32F ? 4 : type == CUDA_R_16BF || type == CUDA_R_16F ? 2 : 8; }

cublasStatus_t Check(const MatmulProblem& p) {
  for (const MatrixLayout* layout : {&p.a, &p.b, &p.c, &p.d}) {
    if (!IsPossible(*layout) || layout->batches != p.d.batches) return CUBLAS_STATUS_INVALID_VALUE;
    if (layout->order != 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const bool a_plain = p.op_a == CUBLAS_OP_N, b_plain = p.op_b == CUBLAS_OP_N;
  const int64_t a_rows = a_plain ? p.a.rows : p.a.columns;
  const int64_t b_rows = b_plain ? p.b.rows : p.b.columns, b_columns = b_plain ? p.b.columns : p.b.rows;
  if (a_rows != p.m() || b_columns != p.n() || b_rows != p.k()) return CUBLAS_STATUS_INVALID_VALUE;
  if (p.c.rows != p.d.rows || p.c.columns != p.d.columns) return CUBLAS_STATUS_INVALID_VALUE;
  if (!AreTypesSupported(p)) return CUBLAS_STATUS_NOT_SUPPORTED;
  switch (p.epilogue) {
    case CUBLASLT_EPILOGUE_DEFAULT:
    case CUBLASLT_EPILOGUE_BIAS:
      return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_EPILOGUE_BGRADA:
    case CUBLASLT_EPILOGUE_BGRADB:
      return p.d.batches == 1 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasLtMatmulAlgo_t Algorithm::Pack(const MatmulProblem& problem) const {
  return {{kMagic, static_cast<uint64_t>(id), static_cast<uint64_t>(splits), alignment,
           static_cast<uint64_t>(workspace_bytes), std::bit_cast<uint64_t>(time), HashOf(problem), 0}};
}

bool Unpack(const MatmulProblem& problem, const cublasLtMatmulAlgo_t& bytes, Algorithm* algorithm) {
  if (bytes.data[0] != kMagic || bytes.data[6] != HashOf(problem)) return false;
  *algorithm = {.id = static_cast<int>(bytes.data[1]),
                .splits = static_cast<int>(bytes.data[2]),
                .alignment = static_cast<uint32_t>(bytes.data[3]),
                .workspace_bytes = static_cast<int64_t>(bytes.data[4]),
                .time = std::bit_cast<double>(bytes.data[5])};
  return true;
}

std::vector<Algorithm> Algorithms(const MatmulProblem& problem, int64_t workspace_bytes, uint32_t alignment) {
  uint32_t columns = alignment;
  for (const MatrixLayout* layout : {&problem.a, &problem.b, &problem.c, &problem.d}) {
    columns = std::min(columns, ColumnAlignment(*layout, alignment));
  }
  std::vector<Algorithm> all;
  for (int id = 0; id < 6; ++id) {
    Algorithm algorithm{.id = id, .splits = id < 3 ? 1 : 1 << (id - 2), .alignment = id == 0 ? 2u : 16u};
    if (algorithm.splits > problem.k()) continue;
    if (algorithm.splits > 1) algorithm.workspace_bytes = problem.m() * problem.n() * 4 * algorithm.splits;
    if (algorithm.workspace_bytes > workspace_bytes || algorithm.alignment > columns) continue;
    // Slower than the best by up to three quarters, each shape in its own way; without alignment twice as slow.
    algorithm.time = (id == 0 ? 2.0 : 1.0) + static_cast<double>(Mix(HashOf(problem), id) % 76) / 100;
    all.push_back(algorithm);
  }
  // As the library guesses: nearly right.
  const auto guess = [](const Algorithm& algorithm) { return static_cast<int>(5 * algorithm.time); };
  std::stable_sort(all.begin(), all.end(), [&](const Algorithm& x, const Algorithm& y) { return guess(x) < guess(y); });
  return all;
}

void SetMatmulArithmetic(MatmulArithmetic arithmetic) { chosen_arithmetic = arithmetic; }

void Compute(const MatmulProblem& problem, const Algorithm& algorithm, const MatmulOperands& operands) {
  for (int32_t batch = 0; batch < problem.d.batches; ++batch) {
    MatmulOperands one = operands;
    one.a = Offset(operands.a, problem.a, batch);
    one.b = Offset(operands.b, problem.b, batch);
    one.c = Offset(operands.c, problem.c, batch);
    one.d = Offset(operands.d, problem.d, batch);
    if (chosen_arithmetic == MatmulArithmetic::kDouble) {
      ComputeOne<double>(problem, algorithm, one);
    } else {
      ComputeOne<float>(problem, algorithm, one);
    }
  }
}

LaunchRegion RegionOf(const MatrixLayout& layout, const void* data, int32_t batch) {
  const int64_t size = SizeOf(layout.type);
  return {Offset(data, layout, batch), layout.rows * size, layout.columns, layout.ld * size};
}

}  // namespace gpu_sim
