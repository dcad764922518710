#include "kernels/cpu/norm.h"

#include "tests/kernels/cpu/every_team.h"
#include "tests/kernels/reference_norm.h"
#include "tests/kernels/test_tensor.h"

namespace sluice::cpu {
namespace {

constexpr double kEpsilon = 1e-5f;

struct Inputs {
  explicit Inputs(const MatrixCase& c, NormKind kind)
      : kind(kind),
        reference{kind, kEpsilon, c.rows, c.columns},
        shape{c.rows, c.columns},
        x(TestTensor::Random(c.dtype, shape, 1, 2.0, 0.5)),
        dy(TestTensor::Random(c.dtype, shape, 2)),
        add(TestTensor::Random(c.dtype, shape, 3)),
        gamma(TestTensor::Random(DType::kF32, {c.columns}, 4, 0.2, 1.0)),
        beta(TestTensor::Random(DType::kF32, {c.columns}, 5)),
        mean(DType::kF32, {c.rows}),
        rstd(DType::kF32, {c.rows}) {
    for (int64_t row = 0; row < c.rows; ++row) {
      mean.Set(row, reference.Mean(x.values(), row));
      rstd.Set(row, reference.Rstd(x.values(), row));
    }
  }
  bool layer_norm() const { return kind == NormKind::kLayerNorm; }
  TensorView LayerNormOnly(TestTensor& tensor) { return layer_norm() ? tensor.view() : TensorView{}; }
  // A column of one element has variance 0 and rstd 316: errors of the mean are multiplied by that.
  double Amplified(double tolerance) const { return shape[1] == 1 && layer_norm() ? 400 * tolerance : tolerance; }

  NormKind kind;
  reference::Norm reference;
  Shape shape;
  TestTensor x, dy, add, gamma, beta, mean, rstd;
};

class NormTest : public testing::TestWithParam<std::tuple<MatrixCase, NormKind>> {
 protected:
  NormTest() : case_(std::get<0>(GetParam())), in_(case_, std::get<1>(GetParam())) {}
  MatrixCase case_;
  Inputs in_;
};

TEST_P(NormTest, ForwardEqualsReference) {
  const std::vector<TestTensor> out = OnEveryTeam([&](Team& team) {
    std::vector<TestTensor> out{TestTensor(case_.dtype, in_.shape), TestTensor(DType::kF32, {case_.rows}),
                                TestTensor(DType::kF32, {case_.rows})};
    NormForward(team, {.kind = in_.kind,
                       .epsilon = static_cast<float>(kEpsilon),
                       .x = in_.x.view(),
                       .gamma = in_.gamma.view(),
                       .beta = in_.LayerNormOnly(in_.beta),
                       .y = out[0].view(),
                       .mean = in_.LayerNormOnly(out[1]),
                       .rstd = out[2].view()});
    if (!in_.layer_norm()) out[1] = in_.mean;  // not written
    return out;
  });
  const Doubles beta = in_.layer_norm() ? in_.beta.values() : Doubles(case_.columns, 0.0);
  // Values up to about 10 go through some 5 roundings of 2^-24 and a mean that is off by as much.
  ExpectNear(out[0], in_.reference.Forward(in_.x.values(), in_.gamma.values(), beta),
             Rounded(case_.dtype, {in_.Amplified(4e-6), 1e-6}), "y");
  ExpectNear(out[1], in_.mean.values(), {1e-6, 1e-6}, "mean");
  // Half the error of the sum of squares: up to 16,500 terms in four chains a lane.
  ExpectNear(out[2], in_.rstd.values(), {0, 5e-6}, "rstd");
}

TEST_P(NormTest, InputGradientEqualsReference) {
  Doubles expected = in_.reference.InputGradient(in_.dy.values(), in_.x.values(), in_.gamma.values());
  for (const bool with_add : {false, true}) {
    const std::vector<TestTensor> out = OnEveryTeam([&](Team& team) {
      TestTensor dx = with_add ? in_.add : TestTensor(case_.dtype, in_.shape);  // add may be dx
      NormInputGradient(team, {.kind = in_.kind,
                               .dy = in_.dy.view(),
                               .x = in_.x.view(),
                               .gamma = in_.gamma.view(),
                               .mean = in_.LayerNormOnly(in_.mean),
                               .rstd = in_.rstd.view(),
                               .add = with_add ? dx.view() : TensorView{},
                               .dx = dx.view()});
      return std::vector<TestTensor>{dx};
    });
    if (with_add) {
      for (int64_t i = 0; i < in_.add.elements(); ++i) expected[i] += in_.add.at(i);
    }
    // Rows of few elements have large rstd (up to 20) and differences of nearly equal numbers.
    ExpectNear(out[0], expected, Rounded(case_.dtype, {in_.Amplified(case_.columns < 10 ? 2e-5 : 4e-6), 1e-6}), "dx");
  }
}

TEST_P(NormTest, WeightGradientEqualsReference) {
  Doubles dgamma, dbeta;
  in_.reference.WeightGradient(in_.dy.values(), in_.x.values(), dgamma, dbeta);
  for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
    const std::vector<TestTensor> out = OnEveryTeam([&](Team& team) {
      std::vector<TestTensor> out(2, TestTensor(DType::kF32, {case_.columns}));
      if (accumulate == Accumulate::kAdd) out = {in_.gamma, in_.beta};
      NormWeightGradient(team, {.kind = in_.kind,
                                .dy = in_.dy.view(),
                                .x = in_.x.view(),
                                .mean = in_.LayerNormOnly(in_.mean),
                                .rstd = in_.rstd.view(),
                                .dgamma = out[0].view(),
                                .dbeta = in_.LayerNormOnly(out[1]),
                                .accumulate = accumulate});
      if (!in_.layer_norm()) out[1] = in_.beta;  // not written
      return out;
    });
    if (accumulate == Accumulate::kAdd) {
      for (int64_t c = 0; c < case_.columns; ++c) {
        dgamma[c] += in_.gamma.at(c);
        dbeta[c] += in_.beta.at(c);
      }
    }
    // Up to 257 terms of order 1 in f32: their sum's rounding errors stay under 20 * 2^-24 * 16.
    const double tolerance = in_.Amplified(2e-5);
    ExpectNear(out[0], dgamma, {tolerance, 1e-6}, "dgamma");
    if (in_.layer_norm()) ExpectNear(out[1], dbeta, {tolerance, 1e-6}, "dbeta");
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, NormTest,
                         testing::Combine(testing::ValuesIn(MatrixCases()),
                                          testing::Values(NormKind::kLayerNorm, NormKind::kRmsNorm)));

TEST(NormReference, GradientsEqualFiniteDifferences) {
  for (const NormKind kind : {NormKind::kLayerNorm, NormKind::kRmsNorm}) {
    const reference::Norm norm{kind, kEpsilon, 3, 7};
    const Doubles x = RandomDoubles(21, 1), dy = RandomDoubles(21, 2);
    const Doubles gamma = RandomDoubles(7, 3), beta = RandomDoubles(7, 4);
    Doubles dgamma, dbeta;
    norm.WeightGradient(dy, x, dgamma, dbeta);
    // FiniteDifferences() is good to 1e-10 times third derivatives, which reach 100 here.
    ExpectClose(norm.InputGradient(dy, x, gamma),
                FiniteDifferences([&](const Doubles& v) { return Dot(norm.Forward(v, gamma, beta), dy); }, x), 1e-7,
                "dx");
    ExpectClose(dgamma, FiniteDifferences([&](const Doubles& v) { return Dot(norm.Forward(x, v, beta), dy); }, gamma),
                1e-7, "dgamma");
    ExpectClose(dbeta, FiniteDifferences([&](const Doubles& v) { return Dot(norm.Forward(x, gamma, v), dy); }, beta),
                1e-7, "dbeta");
  }
}

// A large mean must not eat the variance, as it would if that were E[x^2] - E[x]^2.
TEST(NormForwardTest, KeepsVarianceBesideALargeMean) {
  const reference::Norm norm{NormKind::kLayerNorm, kEpsilon, 4, 100};
  TestTensor x = TestTensor::Random(DType::kF32, {4, 100}, 1, 1.0, 1000.0);
  TestTensor gamma(DType::kF32, {100}, Doubles(100, 1.0)), beta(DType::kF32, {100}, Doubles(100, 0.0));
  TestTensor y(DType::kF32, {4, 100}), mean(DType::kF32, {4}), rstd(DType::kF32, {4});
  Team team(1, {});
  NormForward(team, {.x = x.view(),
                     .gamma = gamma.view(),
                     .beta = beta.view(),
                     .y = y.view(),
                     .mean = mean.view(),
                     .rstd = rstd.view()});
  // The mean is off by some units of 2^-14, and y with it.
  ExpectNear(y, norm.Forward(x.values(), gamma.values(), beta.values()), {3e-4, 0}, "y");
}

TEST(NormForwardTest, PassesNaNOn) {
  TestTensor x = TestTensor::Random(DType::kF32, {2, 33}, 1);
  x.Set(40, std::nan(""));
  TestTensor gamma(DType::kF32, {33}, Doubles(33, 1.0)), y(DType::kF32, {2, 33}), rstd(DType::kF32, {2});
  Team team(1, {});
  NormForward(team,
              {.kind = NormKind::kRmsNorm, .x = x.view(), .gamma = gamma.view(), .y = y.view(), .rstd = rstd.view()});
  EXPECT_FALSE(std::isnan(y.at(0)));
  EXPECT_TRUE(std::isnan(y.at(33)));
}

TEST(NormDeathTest, RefusesAWrongShape) {
  TestTensor x = TestTensor::Random(DType::kF32, {2, 5}, 1), gamma = TestTensor::Random(DType::kF32, {4}, 1);
  TestTensor y(DType::kF32, {2, 5}), rstd(DType::kF32, {2});
  Team team(1, {});
  EXPECT_DEATH(
      NormForward(
          team, {.kind = NormKind::kRmsNorm, .x = x.view(), .gamma = gamma.view(), .y = y.view(), .rstd = rstd.view()}),
      "gamma \\[4\\]");
}

}  // namespace
}  // namespace sluice::cpu
