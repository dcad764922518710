// The simulated cuBLASLt: products against sums in double, element by element; and what the real one refuses.
#include "cublasLt.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "cuda_runtime.h"
#include "gtest/gtest.h"
#include "kernels/dtype.h"
#include "tests/gpu_sim/machine.h"
#include "tests/gpu_sim/matmul.h"
#include "tests/sim/sim_world.h"

namespace gpu_sim {
namespace {

using sluice::BFloat16;
using sluice::ToBFloat16;
using sluice::ToFloat;

struct Case {
  int64_t m = 5, n = 7, k = 9;
  cublasOperation_t op_a = CUBLAS_OP_N, op_b = CUBLAS_OP_N;
  cudaDataType in = CUDA_R_32F, out = CUDA_R_32F;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  float alpha = 1, beta = 0;
  int64_t gap = 0;  // elements between columns
  int batches = 1;
  uint64_t workspace = 1 << 20;
  int candidate = 0;
};

// Waits for the copy.
void CopyBytes(void* to, const void* from, int64_t bytes, cudaMemcpyKind kind) {
  cudaStream_t stream = nullptr;
  std::byte* staging = nullptr;
  EXPECT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  EXPECT_EQ(cudaMallocHost(&staging, bytes), cudaSuccess);
  const bool up = kind == cudaMemcpyHostToDevice;
  if (up) std::memcpy(staging, from, bytes);
  EXPECT_EQ(cudaMemcpyAsync(up ? to : staging, up ? staging : from, bytes, kind, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  if (!up) std::memcpy(to, staging, bytes);
  EXPECT_EQ(cudaFreeHost(staging), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

// A matrix of a type in device memory, with its layout, and its values as they were rounded.
class Matrix {
 public:
  Matrix(cudaDataType type, int64_t rows, int64_t columns, const Case& with, int seed)
      : type_(type), ld_(rows + with.gap), stride_(ld_ * columns) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    values.resize(stride_ * with.batches);
    for (double& value : values) value = Round(normal(generator));
    EXPECT_EQ(cublasLtMatrixLayoutCreate(&layout, type, rows, columns, ld_), CUBLAS_STATUS_SUCCESS);
    const int32_t batches = with.batches;
    EXPECT_EQ(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batches, sizeof(batches)),
              CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride_,
                                               sizeof(stride_)),
              CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cudaMalloc(&data, bytes()), cudaSuccess);
    Upload();
  }
  ~Matrix() {
    EXPECT_EQ(cudaFree(data), cudaSuccess);
    EXPECT_EQ(cublasLtMatrixLayoutDestroy(layout), CUBLAS_STATUS_SUCCESS);
  }

  int64_t bytes() const { return static_cast<int64_t>(values.size()) * SizeOf(type_); }
  double at(int64_t i, int64_t j, int batch) const { return values[i + j * ld_ + batch * stride_]; }
  double Round(double value) const {
    const auto single = static_cast<float>(value);
    return type_ == CUDA_R_16BF ? ToFloat(ToBFloat16(single)) : single;
  }
  void Upload() {
    const std::vector<std::byte> bits = Bits();
    CopyBytes(data, bits.data(), bytes(), cudaMemcpyHostToDevice);
  }
  void Download() {
    std::vector<std::byte> bits(bytes());
    CopyBytes(bits.data(), data, bytes(), cudaMemcpyDeviceToHost);
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = type_ == CUDA_R_16BF ? ToFloat(reinterpret_cast<const BFloat16*>(bits.data())[i])
                                       : reinterpret_cast<const float*>(bits.data())[i];
    }
  }

  std::vector<double> values;
  cublasLtMatrixLayout_t layout = nullptr;
  std::byte* data = nullptr;

 private:
  std::vector<std::byte> Bits() const {
    std::vector<std::byte> bits(bytes());
    for (size_t i = 0; i < values.size(); ++i) {
      const auto value = static_cast<float>(values[i]);
      if (type_ == CUDA_R_16BF) reinterpret_cast<BFloat16*>(bits.data())[i] = ToBFloat16(value);
      if (type_ == CUDA_R_32F) reinterpret_cast<float*>(bits.data())[i] = value;
    }
    return bits;
  }

  const cudaDataType type_;
  const int64_t ld_, stride_;
};

class Product {
 public:
  explicit Product(const Case& with)
      : with_(with),
        a(with.in, with.op_a == CUBLAS_OP_N ? with.m : with.k, with.op_a == CUBLAS_OP_N ? with.k : with.m, with, 1),
        b(with.in, with.op_b == CUBLAS_OP_N ? with.k : with.n, with.op_b == CUBLAS_OP_N ? with.n : with.k, with, 2),
        c(with.out, with.m, with.n, with, 3),
        d(with.out, with.m, with.n, with, 4),
        bias(with.out, with.epilogue == CUBLASLT_EPILOGUE_BGRADB ? with.n : with.m, 1, {}, 5) {
    EXPECT_EQ(cublasLtCreate(&handle), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
    Set(CUBLASLT_MATMUL_DESC_TRANSA, with.op_a);
    Set(CUBLASLT_MATMUL_DESC_TRANSB, with.op_b);
    Set(CUBLASLT_MATMUL_DESC_EPILOGUE, with.epilogue);
    void* const bias_data = bias.data;
    Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias_data);
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    EXPECT_EQ(cudaMalloc(&workspace, 1 << 20), cudaSuccess);
  }
  ~Product() {
    EXPECT_EQ(cudaFree(workspace), cudaSuccess);
    EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
    EXPECT_EQ(cublasLtMatmulDescDestroy(desc), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtDestroy(handle), CUBLAS_STATUS_SUCCESS);
  }

  template <class T>
  void Set(cublasLtMatmulDescAttributes_t what, const T& value) {
    EXPECT_EQ(cublasLtMatmulDescSetAttribute(desc, what, &value, sizeof(value)), CUBLAS_STATUS_SUCCESS);
  }

  std::vector<cublasLtMatmulHeuristicResult_t> Candidates(uint32_t alignment = 16) {
    cublasLtMatmulPreference_t preference = nullptr;
    EXPECT_EQ(cublasLtMatmulPreferenceCreate(&preference), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                   &with_.workspace, sizeof(with_.workspace)),
              CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment,
                                                   sizeof(alignment)),
              CUBLAS_STATUS_SUCCESS);
    std::vector<cublasLtMatmulHeuristicResult_t> results(10);
    int count = 0;
    status = cublasLtMatmulAlgoGetHeuristic(handle, desc, a.layout, b.layout, c.layout, d.layout, preference, 10,
                                            results.data(), &count);
    results.resize(count);
    EXPECT_EQ(cublasLtMatmulPreferenceDestroy(preference), CUBLAS_STATUS_SUCCESS);
    return results;
  }

  // Of the candidate that the case names.
  cublasStatus_t Run(int64_t shift = 0, uint64_t workspace_bytes = 1 << 20) {
    const auto candidates = Candidates();
    if (candidates.empty()) return status;
    const cublasLtMatmulAlgo_t algo = candidates[with_.candidate % candidates.size()].algo;
    return cublasLtMatmul(handle, desc, &with_.alpha, a.data + shift, a.layout, b.data, b.layout, &with_.beta, c.data,
                          c.layout, d.data, d.layout, &algo, workspace, workspace_bytes, stream);
  }

  // Sum of products in double, and of their magnitudes.
  double Sum(int64_t i, int64_t j, int batch, double* magnitude) const {
    double sum = 0;
    for (int64_t l = 0; l < with_.k; ++l) {
      const double x = with_.op_a == CUBLAS_OP_N ? a.at(i, l, batch) : a.at(l, i, batch);
      const double y = with_.op_b == CUBLAS_OP_N ? b.at(l, j, batch) : b.at(j, l, batch);
      sum += x * y;
      *magnitude += std::abs(x * y);
    }
    return sum;
  }

  void ExpectEqualsReference() {
    EXPECT_EQ(Run(), CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    const std::vector<double> before = d.values;
    d.Download();
    for (int batch = 0; batch < with_.batches; ++batch) {
      for (int64_t j = 0; j < with_.n; ++j) {
        for (int64_t i = 0; i < with_.m; ++i) {
          double magnitude = 1;
          double expected = with_.alpha * Sum(i, j, batch, &magnitude);
          if (with_.beta != 0) expected += with_.beta * c.at(i, j, batch);
          if (with_.epilogue == CUBLASLT_EPILOGUE_BIAS) expected += bias.at(i, 0, 0);
          const double rounding = with_.out == CUDA_R_16BF ? 0x1.02p-8 * std::abs(expected) : 0;
          EXPECT_NEAR(d.at(i, j, batch), expected, 1e-6 * magnitude + rounding);
        }
      }
    }
    ExpectGapsUntouched(before);
    ExpectBiasGradient();
  }

  void ExpectGapsUntouched(const std::vector<double>& before) {
    const int64_t ld = with_.m + with_.gap;
    for (size_t i = 0; i < before.size(); ++i) {
      if (static_cast<int64_t>(i) % ld < with_.m) continue;
      EXPECT_EQ(d.values[i], before[i]);
    }
  }

  void ExpectBiasGradient() {
    if (with_.epilogue != CUBLASLT_EPILOGUE_BGRADA && with_.epilogue != CUBLASLT_EPILOGUE_BGRADB) return;
    bias.Download();
    const bool of_a = with_.epilogue == CUBLASLT_EPILOGUE_BGRADA;
    for (int64_t i = 0; i < (of_a ? with_.m : with_.n); ++i) {
      double sum = 0;
      for (int64_t l = 0; l < with_.k; ++l) {
        if (of_a) sum += with_.op_a == CUBLAS_OP_N ? a.at(i, l, 0) : a.at(l, i, 0);
        if (!of_a) sum += with_.op_b == CUBLAS_OP_N ? b.at(l, i, 0) : b.at(i, l, 0);
      }
      EXPECT_NEAR(bias.at(i, 0, 0), sum, 1e-5 + (with_.out == CUDA_R_16BF ? 0x1p-7 * std::abs(sum) : 0));
    }
  }

 private:
  Case with_;

 public:
  Matrix a, b, c, d, bias;
  cublasLtHandle_t handle = nullptr;
  cublasLtMatmulDesc_t desc = nullptr;
  cudaStream_t stream = nullptr;
  std::byte* workspace = nullptr;
  cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
};

class CublasLt : public testing::Test {
 protected:
  void TearDown() override { EXPECT_EQ(machine_.ReportText(), ""); }

  sluice::SimWorld world_{sluice::SimWorldOptions{}};
  Machine machine_{{.world = &world_}};
};

TEST_F(CublasLt, EqualsSumsInDouble) {
  int candidate = 0;
  for (const cublasOperation_t op_a : {CUBLAS_OP_N, CUBLAS_OP_T}) {
    for (const cublasOperation_t op_b : {CUBLAS_OP_N, CUBLAS_OP_T}) {
      for (const auto& [in, out] :
           {std::pair(CUDA_R_32F, CUDA_R_32F), {CUDA_R_16BF, CUDA_R_16BF}, {CUDA_R_16BF, CUDA_R_32F}}) {
        for (const float beta : {0.0f, 1.0f}) {
          for (const int64_t k : {1, 9, 64}) {
            Case with{.m = 8, .n = 24, .k = k, .op_a = op_a, .op_b = op_b, .in = in, .out = out, .beta = beta};
            with.candidate = candidate++;
            Product(with).ExpectEqualsReference();
            with.m = 3, with.n = 5, with.gap = 3, with.alpha = 0.5f, with.batches = 2;
            Product(with).ExpectEqualsReference();
          }
        }
      }
    }
  }
}

TEST_F(CublasLt, Epilogues) {
  for (const cublasLtEpilogue_t epilogue :
       {CUBLASLT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_BGRADA, CUBLASLT_EPILOGUE_BGRADB}) {
    for (const cudaDataType out : {CUDA_R_32F, CUDA_R_16BF}) {
      for (const cublasOperation_t op : {CUBLAS_OP_N, CUBLAS_OP_T}) {
        Product({.op_a = op, .op_b = op, .in = CUDA_R_16BF, .out = out, .epilogue = epilogue}).ExpectEqualsReference();
      }
    }
  }
}

TEST_F(CublasLt, FloatArithmeticIsNearlyTheSame) {
  SetMatmulArithmetic(MatmulArithmetic::kFloat);
  Product({.m = 8, .n = 24, .k = 64}).ExpectEqualsReference();
  SetMatmulArithmetic(MatmulArithmetic::kDouble);
}

TEST_F(CublasLt, AlgorithmsDifferInTheLastBitsAndRepeatThem) {
  Case with{.m = 16, .n = 16, .k = 512};
  std::vector<std::vector<double>> results;
  for (int run = 0; run < 2; ++run) {
    for (int candidate = 0; candidate < 5; ++candidate) {
      with.candidate = candidate;
      Product product(with);
      product.ExpectEqualsReference();
      results.push_back(product.d.values);
    }
  }
  for (int candidate = 0; candidate < 5; ++candidate) EXPECT_EQ(results[candidate], results[5 + candidate]);
  EXPECT_TRUE(results[0] != results[1] || results[1] != results[2] || results[2] != results[3]);
}

TEST_F(CublasLt, RefusesWhatMakesNoSense) {
  Product product({.m = 8, .n = 8, .k = 8});
  EXPECT_EQ(product.Run(), CUBLAS_STATUS_SUCCESS);
  const int64_t small = 7;
  cublasLtMatrixLayoutSetAttribute(product.a.layout, CUBLASLT_MATRIX_LAYOUT_LD, &small, sizeof(small));
  EXPECT_EQ(product.Run(), CUBLAS_STATUS_INVALID_VALUE);
  const int64_t whole = 8;
  cublasLtMatrixLayoutSetAttribute(product.a.layout, CUBLASLT_MATRIX_LAYOUT_LD, &whole, sizeof(whole));
  EXPECT_EQ(cublasLtMatrixLayoutSetAttribute(product.a.layout, CUBLASLT_MATRIX_LAYOUT_LD, &whole, 4),
            CUBLAS_STATUS_INVALID_VALUE);
  product.Set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  void* const none = nullptr;
  product.Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, none);
  EXPECT_EQ(product.Run(), CUBLAS_STATUS_INVALID_VALUE) << "a bias that isn't there";
  EXPECT_EQ(cublasLtMatmulAlgoGetHeuristic(nullptr, product.desc, product.a.layout, product.b.layout, product.c.layout,
                                           product.d.layout, nullptr, 1, nullptr, nullptr),
            CUBLAS_STATUS_NOT_INITIALIZED);
  Product other({.m = 8, .n = 8, .k = 9});
  std::swap(product.b.layout, other.b.layout);
  EXPECT_EQ(product.Run(), CUBLAS_STATUS_INVALID_VALUE) << "8 columns of a, 9 rows of b";
  std::swap(product.b.layout, other.b.layout);
  EXPECT_EQ(cudaStreamSynchronize(product.stream), cudaSuccess);
}

TEST_F(CublasLt, RefusesWhatTheLibraryDoesNotCompute) {
  EXPECT_EQ(Product({.in = CUDA_R_32F, .out = CUDA_R_16BF}).Run(), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(Product({.in = CUDA_R_64F, .out = CUDA_R_64F}).Run(), CUBLAS_STATUS_NOT_SUPPORTED);
  Product relu({.epilogue = CUBLASLT_EPILOGUE_RELU});
  EXPECT_EQ(relu.Run(), CUBLAS_STATUS_NOT_SUPPORTED);
  Product rows({});
  const int32_t row_major = 1;
  cublasLtMatrixLayoutSetAttribute(rows.a.layout, CUBLASLT_MATRIX_LAYOUT_ORDER, &row_major, sizeof(row_major));
  EXPECT_EQ(rows.Run(), CUBLAS_STATUS_NOT_SUPPORTED);
}

TEST_F(CublasLt, AlignmentAndWorkspaceAreHeldTo) {
  Product product({.m = 16, .n = 16, .k = 32, .in = CUDA_R_16BF});
  const auto candidates = product.Candidates();
  ASSERT_GT(candidates.size(), 3u);
  for (const auto& candidate : candidates) {
    const float one = 1, zero = 0;
    const auto run = [&](int64_t shift, size_t workspace) {
      return cublasLtMatmul(product.handle, product.desc, &one, product.a.data + shift, product.a.layout,
                            product.b.data, product.b.layout, &zero, product.d.data, product.c.layout, product.d.data,
                            product.d.layout, &candidate.algo, product.workspace, workspace, product.stream);
    };
    if (candidate.workspaceSize > 0) {
      EXPECT_EQ(run(0, candidate.workspaceSize - 1), CUBLAS_STATUS_INVALID_VALUE);
    }
    EXPECT_EQ(run(0, candidate.workspaceSize), CUBLAS_STATUS_SUCCESS);
  }
  EXPECT_EQ(product.Candidates(2).size(), 1u) << "one algorithm does without alignment";
  EXPECT_EQ(product.Run(2), CUBLAS_STATUS_NOT_SUPPORTED) << "an algorithm for aligned operands, which they aren't";
  EXPECT_EQ(cudaStreamSynchronize(product.stream), cudaSuccess);
}

TEST_F(CublasLt, AStoredAlgorithmIsOnlyForItsShape) {
  Product product({.m = 16, .n = 16, .k = 32}), other({.m = 16, .n = 16, .k = 40});
  const cublasLtMatmulAlgo_t algo = product.Candidates()[0].algo;
  cublasLtMatmulHeuristicResult_t result;
  EXPECT_EQ(cublasLtMatmulAlgoCheck(product.handle, product.desc, product.a.layout, product.b.layout, product.c.layout,
                                    product.d.layout, &algo, &result),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cublasLtMatmulAlgoCheck(other.handle, other.desc, other.a.layout, other.b.layout, other.c.layout,
                                    other.d.layout, &algo, &result),
            CUBLAS_STATUS_NOT_SUPPORTED);
}

// The same time as a plan reckons with: an algorithm's share slower than FLOPs / rate.
TEST(CublasLtTime, FollowsTheDescriptionOfTheDevice) {
  const sluice::DeviceDescription numbers{
      .flops_bf16 = 1e12, .bytes_per_second = 1e12, .launch_ns = 0, .memory_bytes = int64_t{1} << 30};
  sluice::SimWorld world{sluice::SimWorldOptions{}};
  Machine machine({.world = &world, .device = WithNumbersOf(numbers), .timing = Timing::kModelled});
  Product product({.m = 256, .n = 256, .k = 256, .in = CUDA_R_16BF});
  cudaEvent_t begin = nullptr, end = nullptr;
  EXPECT_EQ(cudaEventCreate(&begin), cudaSuccess);
  EXPECT_EQ(cudaEventCreate(&end), cudaSuccess);
  EXPECT_EQ(product.Run(), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cudaEventRecord(begin, product.stream), cudaSuccess);
  EXPECT_EQ(product.Run(), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cudaEventRecord(end, product.stream), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(product.stream), cudaSuccess);
  float milliseconds = 0;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, begin, end), cudaSuccess);
  constexpr double kProductMs = 2.0 * 256 * 256 * 256 / 1e12 * 1e3;
  EXPECT_GE(milliseconds, kProductMs);
  EXPECT_LE(milliseconds, 2 * kProductMs);
  EXPECT_EQ(cudaEventDestroy(begin), cudaSuccess);
  EXPECT_EQ(cudaEventDestroy(end), cudaSuccess);
  EXPECT_EQ(machine.ReportText(), "");
}

}  // namespace
}  // namespace gpu_sim
