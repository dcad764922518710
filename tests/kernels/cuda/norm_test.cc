#include "kernels/cuda/norm.h"

#include "kernels/cuda/column_sums.h"
#include "tests/kernels/cuda/on_gpu.h"
#include "tests/kernels/reference_norm.h"

namespace sluice::cuda {
namespace {

constexpr double kEpsilon = 1e-5f;

class NormTest : public testing::TestWithParam<std::tuple<MatrixCase, NormKind>> {
 protected:
  NormTest() {
    for (int64_t row = 0; row < case_.rows; ++row) {
      mean_.Set(row, reference_.Mean(x_.values(), row));
      rstd_.Set(row, reference_.Rstd(x_.values(), row));
    }
  }
  bool layer_norm() const { return kind_ == NormKind::kLayerNorm; }
  TensorView LayerNormOnly(OnGpu& gpu, TestTensor& tensor) { return layer_norm() ? gpu(tensor) : TensorView{}; }
  // A column of one element has variance 0 and rstd 316: errors of the mean are multiplied by that.
  double Amplified(double tolerance) const { return case_.columns == 1 && layer_norm() ? 400 * tolerance : tolerance; }

  struct Forward {
    TestTensor y, mean, rstd;
  };
  Forward RunForward(Placement placement) {
    Forward out{TestTensor(case_.dtype, shape_), TestTensor(DType::kF32, {case_.rows}),
                TestTensor(DType::kF32, {case_.rows})};
    OnGpu gpu(placement);
    gpu.Finish(NormForward(gpu.stream(), {.kind = kind_,
                                          .epsilon = static_cast<float>(kEpsilon),
                                          .x = gpu(x_),
                                          .gamma = gpu(gamma_),
                                          .beta = LayerNormOnly(gpu, beta_),
                                          .y = gpu(out.y),
                                          .mean = LayerNormOnly(gpu, out.mean),
                                          .rstd = gpu(out.rstd)}));
    return out;
  }
  TestTensor RunInputGradient(Placement placement, bool with_add) {
    TestTensor dx = with_add ? add_ : TestTensor(case_.dtype, shape_);  // add may be dx
    OnGpu gpu(placement);
    gpu.Finish(NormInputGradient(gpu.stream(), {.kind = kind_,
                                                .dy = gpu(dy_),
                                                .x = gpu(x_),
                                                .gamma = gpu(gamma_),
                                                .mean = LayerNormOnly(gpu, mean_),
                                                .rstd = gpu(rstd_),
                                                .add = with_add ? gpu(dx) : TensorView{},
                                                .dx = gpu(dx)}));
    return dx;
  }
  struct WeightGradient {
    TestTensor dgamma, dbeta;
  };
  WeightGradient RunWeightGradient(Placement placement, Accumulate accumulate) {
    WeightGradient out{TestTensor(DType::kF32, {case_.columns}), TestTensor(DType::kF32, {case_.columns})};
    if (accumulate == Accumulate::kAdd) out = {gamma_, beta_};
    OnGpu gpu(placement);
    gpu.Finish(NormWeightGradient(gpu.stream(),
                                  {.kind = kind_,
                                   .dy = gpu(dy_),
                                   .x = gpu(x_),
                                   .mean = LayerNormOnly(gpu, mean_),
                                   .rstd = gpu(rstd_),
                                   .dgamma = gpu(out.dgamma),
                                   .dbeta = LayerNormOnly(gpu, out.dbeta),
                                   .accumulate = accumulate},
                                  gpu.Scratch(NormWeightGradientWorkspaceBytes(case_.rows, case_.columns))));
    return out;
  }

  MatrixCase case_ = std::get<0>(GetParam());
  NormKind kind_ = std::get<1>(GetParam());
  Shape shape_{case_.rows, case_.columns};
  reference::Norm reference_{kind_, kEpsilon, case_.rows, case_.columns};
  TestTensor x_ = TestTensor::Random(case_.dtype, shape_, 1, 2.0, 0.5);
  TestTensor dy_ = TestTensor::Random(case_.dtype, shape_, 2), add_ = TestTensor::Random(case_.dtype, shape_, 3);
  TestTensor gamma_ = TestTensor::Random(DType::kF32, {case_.columns}, 4, 0.2, 1.0);
  TestTensor beta_ = TestTensor::Random(DType::kF32, {case_.columns}, 5);
  TestTensor mean_{DType::kF32, {case_.rows}}, rstd_{DType::kF32, {case_.rows}};
};

TEST_P(NormTest, ForwardEqualsReferenceWhereverTensorsLie) {
  const Forward out = RunForward(Placement::kAligned), shifted = RunForward(Placement::kShifted);
  const Doubles beta = layer_norm() ? beta_.values() : Doubles(case_.columns, 0.0);
  // Values up to about 10 go through some 5 roundings of 2^-24 and a mean that is off by as much.
  ExpectNear(out.y, reference_.Forward(x_.values(), gamma_.values(), beta),
             Rounded(case_.dtype, {Amplified(4e-6), 1e-6}), "y");
  if (layer_norm()) ExpectNear(out.mean, mean_.values(), {1e-6, 1e-6}, "mean");
  ExpectNear(out.rstd, rstd_.values(), {0, 5e-6}, "rstd");
  EXPECT_TRUE(out.y.SameBits(shifted.y) && out.rstd.SameBits(shifted.rstd));
}

TEST_P(NormTest, InputGradientEqualsReferenceWhereverTensorsLie) {
  Doubles expected = reference_.InputGradient(dy_.values(), x_.values(), gamma_.values());
  // Rows of few elements have large rstd (up to 20) and differences of nearly equal numbers.
  const Tolerance tolerance = Rounded(case_.dtype, {Amplified(case_.columns < 10 ? 2e-5 : 4e-6), 1e-6});
  const TestTensor dx = RunInputGradient(Placement::kAligned, false);
  ExpectNear(dx, expected, tolerance, "dx");
  EXPECT_TRUE(dx.SameBits(RunInputGradient(Placement::kShifted, false)));
  for (int64_t i = 0; i < add_.elements(); ++i) expected[i] += add_.at(i);
  ExpectNear(RunInputGradient(Placement::kAligned, true), expected, tolerance, "dx + add");
}

TEST_P(NormTest, WeightGradientEqualsReferenceWhereverTensorsLie) {
  Doubles dgamma, dbeta;
  reference_.WeightGradient(dy_.values(), x_.values(), dgamma, dbeta);
  for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
    const WeightGradient out = RunWeightGradient(Placement::kAligned, accumulate);
    if (accumulate == Accumulate::kAdd) {
      for (int64_t c = 0; c < case_.columns; ++c) {
        dgamma[c] += gamma_.at(c);
        dbeta[c] += beta_.at(c);
      }
    }
    // Up to 130 terms of order 1 in f32: their sum's rounding errors stay under 20 * 2^-24 * 16.
    const double tolerance = Amplified(2e-5);
    ExpectNear(out.dgamma, dgamma, {tolerance, 1e-6}, "dgamma");
    if (layer_norm()) ExpectNear(out.dbeta, dbeta, {tolerance, 1e-6}, "dbeta");
    EXPECT_TRUE(out.dgamma.SameBits(RunWeightGradient(Placement::kShifted, accumulate).dgamma));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, NormTest,
                         testing::Combine(testing::ValuesIn(GpuMatrixCases()),
                                          testing::Values(NormKind::kLayerNorm, NormKind::kRmsNorm)));

// A large mean must not eat the variance, as it would if that were E[x^2] - E[x]^2.
TEST(NormForwardTest, KeepsVarianceBesideALargeMean) {
  const reference::Norm norm{NormKind::kLayerNorm, kEpsilon, 4, 100};
  TestTensor x = TestTensor::Random(DType::kF32, {4, 100}, 1, 1.0, 1000.0);
  TestTensor gamma(DType::kF32, {100}, Doubles(100, 1.0)), beta(DType::kF32, {100}, Doubles(100, 0.0));
  TestTensor y(DType::kF32, {4, 100}), mean(DType::kF32, {4}), rstd(DType::kF32, {4});
  OnGpu gpu;
  gpu.Finish(NormForward(
      gpu.stream(),
      {.x = gpu(x), .gamma = gpu(gamma), .beta = gpu(beta), .y = gpu(y), .mean = gpu(mean), .rstd = gpu(rstd)}));
  // The mean is off by some units of 2^-14, and y with it.
  ExpectNear(y, norm.Forward(x.values(), gamma.values(), beta.values()), {3e-4, 0}, "y");
}

TEST(NormForwardTest, PassesNaNOnWithinItsRow) {
  TestTensor x = TestTensor::Random(DType::kF32, {2, 33}, 1);
  x.Set(40, std::nan(""));
  TestTensor gamma(DType::kF32, {33}, Doubles(33, 1.0)), y(DType::kF32, {2, 33}), rstd(DType::kF32, {2});
  OnGpu gpu;
  gpu.Finish(NormForward(
      gpu.stream(), {.kind = NormKind::kRmsNorm, .x = gpu(x), .gamma = gpu(gamma), .y = gpu(y), .rstd = gpu(rstd)}));
  for (int i = 0; i < 33; ++i) {
    EXPECT_FALSE(std::isnan(y.at(i)));
    EXPECT_TRUE(std::isnan(y.at(33 + i)));
  }
}

class BiasGradientTest : public testing::TestWithParam<MatrixCase> {};

TEST_P(BiasGradientTest, EqualsReferenceWhereverTensorsLie) {
  const auto [rows, columns, dtype] = GetParam();
  TestTensor dy = TestTensor::Random(dtype, {rows, columns}, 1);
  const TestTensor before = TestTensor::Random(DType::kF32, {columns}, 2);
  for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
    const auto run = [&, rows = rows, columns = columns](Placement placement) {
      TestTensor dbias = accumulate == Accumulate::kAdd ? before : TestTensor(DType::kF32, {columns});
      OnGpu gpu(placement);
      gpu.Finish(BiasGradient(gpu.stream(), gpu(dy), gpu(dbias), accumulate,
                              gpu.Scratch(BiasGradientWorkspaceBytes(rows, columns))));
      return dbias;
    };
    Doubles expected = accumulate == Accumulate::kAdd ? before.values() : Doubles(columns, 0.0);
    for (int64_t i = 0; i < rows * columns; ++i) expected[i % columns] += dy.at(i);
    const TestTensor dbias = run(Placement::kAligned);
    ExpectNear(dbias, expected, {2e-5, 1e-6}, "dbias");
    EXPECT_TRUE(dbias.SameBits(run(Placement::kShifted)));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, BiasGradientTest, testing::ValuesIn(GpuMatrixCases()));

}  // namespace
}  // namespace sluice::cuda
