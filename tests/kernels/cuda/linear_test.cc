#include "kernels/cuda/linear.h"

#include <memory>

#include "tests/kernels/cuda/on_gpu.h"

namespace sluice::cuda {
namespace {

struct LinearCase {
  int64_t rows, n, k;
  DType dtype;
};
void PrintTo(const LinearCase& c, std::ostream* out) {
  *out << c.rows << " x " << c.n << " x " << c.k << " " << Name(c.dtype);
}

// Sums of products in double of what the tensors hold, with the sum of their magnitudes.
struct Products {
  Doubles sums, magnitudes;
};
Products Multiply(int64_t rows, int64_t columns, int64_t depth, const std::function<double(int64_t, int64_t)>& left,
                  const std::function<double(int64_t, int64_t)>& right) {
  Products result;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      double sum = 0, magnitude = 0;
      for (int64_t l = 0; l < depth; ++l) {
        sum += left(i, l) * right(l, j);
        magnitude += std::abs(left(i, l) * right(l, j));
      }
      result.sums.push_back(sum);
      result.magnitudes.push_back(magnitude);
    }
  }
  return result;
}

std::unique_ptr<Matmul> NewMatmul(MatmulChoices choices = {}, Unchosen unchosen = Unchosen::kGuessed) {
  auto matmul = Matmul::Create(std::move(choices), unchosen);
  EXPECT_TRUE(matmul.ok()) << matmul.status();
  return *std::move(matmul);
}

class LinearTest : public testing::TestWithParam<LinearCase> {
 protected:
  // |error| <= the rounding of f32 sums, and of the result's type.
  void ExpectNearSums(const TestTensor& result, const Doubles& expected, const Doubles& magnitudes, double extra,
                      const char* name) {
    for (int64_t i = 0; i < result.elements(); ++i) {
      const double rounding = result.dtype() == DType::kBF16 ? 0x1.02p-8 * std::abs(expected[i]) : 0;
      ASSERT_NEAR(result.at(i), expected[i], 1e-6 * (magnitudes[i] + 4) + rounding + extra) << name << "[" << i << "]";
    }
  }

  int64_t rows_ = GetParam().rows, n_ = GetParam().n, k_ = GetParam().k;
  DType dtype_ = GetParam().dtype;
  LinearShape shape_{n_, k_, dtype_};
  TestTensor x_ = TestTensor::Random(dtype_, {rows_, k_}, 1), dy_ = TestTensor::Random(dtype_, {rows_, n_}, 2);
  // As the operation takes it: rounded to the compute type.
  TestTensor rounded_ = TestTensor::Random(dtype_, {n_, k_}, 3);
  TestTensor weight_{DType::kF32, {n_, k_}, rounded_.values()};
  TestTensor bias_ = TestTensor::Random(DType::kF32, {n_}, 4), add_ = TestTensor::Random(dtype_, {rows_, n_}, 5);
};

// From now on these calls take the reference.
template <class Args>
void LeaveUnfused(Matmul& matmul, const Args& args) {
  if (const auto shape = EpilogueShape(args)) matmul.SetFused(*shape, false);
}

TensorView PackedOn(OnGpu& gpu, const LinearShape& shape, TestTensor& weight) {
  const Workspace packed = gpu.Scratch(PackedLinearBytes(shape));
  const TensorView view{packed.data, DType::kI32, {packed.bytes / 4}};
  Succeed(PackLinear(gpu.stream(), shape, gpu(weight), view));
  return view;
}

TEST_P(LinearTest, ForwardEqualsReference) {
  const Products products = Multiply(
      rows_, n_, k_, [&](int64_t i, int64_t l) { return x_.at(i * k_ + l); },
      [&](int64_t l, int64_t j) { return rounded_.at(j * k_ + l); });
  for (const DType out : {dtype_, DType::kF32}) {
    for (const bool with_bias : {false, true}) {
      for (const bool with_add : {false, true}) {
        for (const bool fused : {false, true}) {
          TestTensor y(out, {rows_, n_});
          OnGpu gpu;
          const auto matmul = NewMatmul();
          LinearForwardArgs args{.shape = shape_, .x = gpu(x_), .packed = PackedOn(gpu, shape_, weight_), .y = gpu(y)};
          if (with_bias) args.bias = gpu(bias_);
          if (with_add) args.add = gpu(add_);
          if (!fused) LeaveUnfused(*matmul, args);
          gpu.Finish(LinearForward(*matmul, gpu.stream(), args, gpu.Scratch(LinearWorkspaceBytes())));
          Doubles expected = products.sums;
          for (int64_t i = 0; i < rows_ * n_; ++i) {
            expected[i] += (with_bias ? bias_.at(i % n_) : 0) + (with_add ? add_.at(i) : 0);
          }
          // A fused bias is rounded to bf16, up to 4 in size.
          const double bias_rounding = with_bias && fused && out == DType::kBF16 ? 4 * 0x1p-9 : 0;
          ExpectNearSums(y, expected, products.magnitudes, bias_rounding, "y");
        }
      }
    }
  }
}

TEST_P(LinearTest, TheAddendMayBeTheResult) {
  const Products products = Multiply(
      rows_, n_, k_, [&](int64_t i, int64_t l) { return x_.at(i * k_ + l); },
      [&](int64_t l, int64_t j) { return rounded_.at(j * k_ + l); });
  TestTensor y = add_;
  OnGpu gpu;
  const auto matmul = NewMatmul();
  const LinearForwardArgs args{
      .shape = shape_, .x = gpu(x_), .packed = PackedOn(gpu, shape_, weight_), .add = gpu(y), .y = gpu(y)};
  gpu.Finish(LinearForward(*matmul, gpu.stream(), args, gpu.Scratch(LinearWorkspaceBytes())));
  Doubles expected = products.sums;
  for (int64_t i = 0; i < rows_ * n_; ++i) expected[i] += add_.at(i);
  ExpectNearSums(y, expected, products.magnitudes, 0, "y");
}

TEST_P(LinearTest, InputGradientEqualsReference) {
  const Products products = Multiply(
      rows_, k_, n_, [&](int64_t i, int64_t l) { return dy_.at(i * n_ + l); },
      [&](int64_t l, int64_t j) { return rounded_.at(l * k_ + j); });
  TestTensor dx(dtype_, {rows_, k_});
  OnGpu gpu;
  const auto matmul = NewMatmul();
  const LinearInputGradientArgs args{
      .shape = shape_, .dy = gpu(dy_), .packed = PackedOn(gpu, shape_, weight_), .dx = gpu(dx)};
  gpu.Finish(LinearInputGradient(*matmul, gpu.stream(), args, gpu.Scratch(LinearWorkspaceBytes())));
  ExpectNearSums(dx, products.sums, products.magnitudes, 0, "dx");
}

TEST_P(LinearTest, WeightGradientsAreF32AndAddUp) {
  const Products products = Multiply(
      n_, k_, rows_, [&](int64_t i, int64_t l) { return dy_.at(l * n_ + i); },
      [&](int64_t l, int64_t j) { return x_.at(l * k_ + j); });
  const Products columns = Multiply(
      n_, 1, rows_, [&](int64_t i, int64_t l) { return dy_.at(l * n_ + i); }, [](int64_t, int64_t) { return 1.0; });
  for (const bool with_bias : {false, true}) {
    for (const bool fused : {false, true}) {
      TestTensor dweight(DType::kF32, {n_, k_}), dbias(DType::kF32, {n_});
      const auto times = [](Doubles values, double factor) {
        for (double& value : values) value *= factor;
        return values;
      };
      OnGpu gpu;
      const auto matmul = NewMatmul();
      LinearWeightGradientArgs args{.shape = shape_, .x = gpu(x_), .dy = gpu(dy_), .dweight = gpu(dweight)};
      if (with_bias) args.dbias = gpu(dbias);
      const Workspace workspace = gpu.Scratch(LinearWorkspaceBytes());
      for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd, Accumulate::kAdd}) {
        args.accumulate = accumulate;
        if (!fused) LeaveUnfused(*matmul, args);
        Succeed(LinearWeightGradient(*matmul, gpu.stream(), args, workspace));
      }
      gpu.Finish(cudaSuccess);
      ExpectNearSums(dweight, times(products.sums, 3), times(products.magnitudes, 3), 0, "dweight");
      if (with_bias) ExpectNearSums(dbias, times(columns.sums, 3), times(columns.magnitudes, 3), 0, "dbias");
    }
  }
}

// Weight gradients are measured with their accumulation and their bias gradients, and multiplied once for that.
TEST_P(LinearTest, WeightGradientsAreMeasuredToo) {
  TestTensor dweight(DType::kF32, {n_, k_}), dbias(DType::kF32, {n_});
  OnGpu gpu;
  const auto matmul = NewMatmul({}, Unchosen::kMeasured);
  LinearWeightGradientArgs args{.shape = shape_,
                                .x = gpu(x_),
                                .dy = gpu(dy_),
                                .dweight = gpu(dweight),
                                .dbias = gpu(dbias),
                                .accumulate = Accumulate::kOverwrite};
  const Workspace workspace = gpu.Scratch(LinearWorkspaceBytes());
  Succeed(LinearWeightGradient(*matmul, gpu.stream(), args, workspace));
  const size_t chosen = matmul->choices().of.size();
  gpu.Finish(LinearWeightGradient(*matmul, gpu.stream(), args, workspace));
  EXPECT_EQ(matmul->choices().of.size(), chosen);
  EXPECT_GE(chosen, 2u) << "with the epilogue and without";
  const Products products = Multiply(
      n_, k_, rows_, [&](int64_t i, int64_t l) { return dy_.at(l * n_ + i); },
      [&](int64_t l, int64_t j) { return x_.at(l * k_ + j); });
  ExpectNearSums(dweight, products.sums, products.magnitudes, 0, "dweight");
}

// Measured choices are text that another program takes up, and gets the same bits.
TEST_P(LinearTest, ChoicesAreMeasuredAndKept) {
  TestTensor first(dtype_, {rows_, n_}), second(dtype_, {rows_, n_});
  std::string text;
  {
    OnGpu gpu;
    const auto matmul = NewMatmul({}, Unchosen::kMeasured);
    const LinearForwardArgs args{
        .shape = shape_, .x = gpu(x_), .packed = PackedOn(gpu, shape_, weight_), .bias = gpu(bias_), .y = gpu(first)};
    gpu.Finish(LinearForward(*matmul, gpu.stream(), args, gpu.Scratch(LinearWorkspaceBytes())));
    text = ToText(matmul->choices());
  }
  const auto choices = MatmulChoicesFromText(text, "choices");
  ASSERT_TRUE(choices.ok()) << choices.status();
  EXPECT_EQ(ToText(*choices), text);
  OnGpu gpu;
  const auto matmul = NewMatmul(*choices);
  const LinearForwardArgs args{
      .shape = shape_, .x = gpu(x_), .packed = PackedOn(gpu, shape_, weight_), .bias = gpu(bias_), .y = gpu(second)};
  gpu.Finish(LinearForward(*matmul, gpu.stream(), args, gpu.Scratch(LinearWorkspaceBytes())));
  EXPECT_TRUE(first.SameBits(second));
  EXPECT_EQ(ToText(matmul->choices()), text) << "nothing had to be guessed";
}

INSTANTIATE_TEST_SUITE_P(Shapes, LinearTest,
                         testing::Values(LinearCase{1, 1, 1, DType::kF32}, LinearCase{7, 5, 3, DType::kF32},
                                         LinearCase{33, 17, 40, DType::kF32}, LinearCase{64, 32, 48, DType::kF32},
                                         LinearCase{1, 1, 1, DType::kBF16}, LinearCase{7, 5, 3, DType::kBF16},
                                         LinearCase{33, 17, 40, DType::kBF16}, LinearCase{64, 32, 48, DType::kBF16},
                                         LinearCase{20, 257, 24, DType::kBF16}));

TEST(Matmul, ChoicesOfAnotherMachineAreRefused) {
  const auto gpu = NewTestGpu();
  MatmulChoices choices{.architecture = "sm_1", .library_version = 1};
  EXPECT_TRUE(Matmul::Create(choices).ok()) << "there are none in it";
  choices.of[MatmulShape{.m = 1, .n = 1, .k = 1}] = {};
  const auto refused = Matmul::Create(choices);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace sluice::cuda
