#include "kernels/cpu/activation.h"

#include "kernels/cpu/rope.h"
#include "tests/kernels/cpu/every_team.h"
#include "tests/kernels/reference_activation.h"
#include "tests/kernels/test_tensor.h"

namespace sluice::cpu {
namespace {

class ActivationTest : public testing::TestWithParam<MatrixCase> {
 protected:
  ActivationTest()
      : shape_{GetParam().rows, GetParam().columns},
        double_shape_{GetParam().rows, 2 * GetParam().columns},
        dtype_(GetParam().dtype),
        x_(TestTensor::Random(dtype_, shape_, 1, 3.0)),
        dy_(TestTensor::Random(dtype_, shape_, 2)),
        gate_up_(TestTensor::Random(dtype_, double_shape_, 3, 3.0)) {}
  Shape shape_, double_shape_;
  DType dtype_;
  TestTensor x_, dy_, gate_up_;
};

TEST_P(ActivationTest, GeluEqualsReference) {
  const auto out = OnEveryTeam([&](Team& team) {
    TestTensor y(dtype_, shape_);
    GeluForward(team, {.x = x_.view(), .y = y.view()});
    return std::vector<TestTensor>{y};
  });
  // Relative, in the tail of negative x too: e^-z with |z| up to 60 carries |z| units in the last place of z.
  ExpectNear(out[0], reference::Map(x_.values(), reference::Gelu), Rounded(dtype_, {1e-12, 8e-6}), "y");
}

TEST_P(ActivationTest, GeluGradientEqualsReferenceAndMayReplaceDy) {
  const auto out = OnEveryTeam([&](Team& team) {
    TestTensor dx = dy_;
    GeluBackward(team, {.x = x_.view(), .dy = dx.view(), .dx = dx.view()});
    return std::vector<TestTensor>{dx};
  });
  Doubles expected = reference::Map(x_.values(), reference::GeluDerivative);
  for (int64_t i = 0; i < dy_.elements(); ++i) expected[i] *= dy_.at(i);
  // The derivative is of order 1, a sum of terms of opposite sign near its zero: some units of 2^-24, times dy up to 5.
  ExpectNear(out[0], expected, Rounded(dtype_, {4e-6, 1e-6}), "dx");
}

TEST_P(ActivationTest, SwigluEqualsReference) {
  const auto out = OnEveryTeam([&](Team& team) {
    TestTensor y(dtype_, shape_);
    SwigluForward(team, {.gate_up = gate_up_.view(), .y = y.view()});
    return std::vector<TestTensor>{y};
  });
  ExpectNear(out[0], reference::Swiglu(gate_up_.values(), GetParam().rows), Rounded(dtype_, {0, 2e-6}), "y");
}

TEST_P(ActivationTest, SwigluGradientEqualsReference) {
  const auto out = OnEveryTeam([&](Team& team) {
    TestTensor dgate_up(dtype_, double_shape_);
    SwigluBackward(team, {.gate_up = gate_up_.view(), .dy = dy_.view(), .dgate_up = dgate_up.view()});
    return std::vector<TestTensor>{dgate_up};
  });
  // As for GELU, with dy * up reaching 40.
  ExpectNear(out[0], reference::SwigluGradient(gate_up_.values(), dy_.values(), GetParam().rows),
             Rounded(dtype_, {1e-5, 2e-6}), "dgate_up");
}

INSTANTIATE_TEST_SUITE_P(Shapes, ActivationTest, testing::ValuesIn(MatrixCases()));

TEST(ActivationReference, DerivativesEqualFiniteDifferences) {
  const Doubles x = RandomDoubles(20, 1), dy = RandomDoubles(10, 2);
  ExpectClose(
      reference::Map(x, reference::GeluDerivative),
      FiniteDifferences([](const Doubles& v) { return Dot(reference::Map(v, reference::Gelu), Doubles(20, 1.0)); }, x),
      1e-8, "gelu");
  ExpectClose(reference::SwigluGradient(x, dy, 2),
              FiniteDifferences([&](const Doubles& v) { return Dot(reference::Swiglu(v, 2), dy); }, x), 1e-8, "swiglu");
}

// Neither overflow nor NaN far out, where kernels stop at a limit, and a NaN stays one.
TEST(ActivationTest, KeepsItsLimits) {
  const Doubles far = {-1e30, -200, -90, -12, -0.0, 12, 90, 200, 1e30, std::nan("")};
  TestTensor x(DType::kF32, {10}, far), y(DType::kF32, {10}), dx(DType::kF32, {10}, Doubles(10, 1.0));
  Team team(1, {});
  GeluForward(team, {.x = x.view(), .y = y.view()});
  GeluBackward(team, {.x = x.view(), .dy = dx.view(), .dx = dx.view()});
  for (int i = 0; i < 9; ++i) {
    EXPECT_NEAR(y.at(i), std::max(far[i], 0.0), std::max(far[i] * 1e-7, 2e-36)) << far[i];
    EXPECT_NEAR(dx.at(i), far[i] == 0 ? 0.5 : far[i] > 0, 1e-6) << far[i];
  }
  EXPECT_TRUE(std::isnan(y.at(9)));
  EXPECT_TRUE(std::isnan(dx.at(9)));

  TestTensor gate_up(DType::kF32, {1, 20}, Doubles(20, 1.0)), dgate_up(DType::kF32, {1, 20});
  for (int i = 0; i < 10; ++i) gate_up.Set(i, far[i]);
  TestTensor z(DType::kF32, {1, 10}), dz(DType::kF32, {1, 10}, Doubles(10, 1.0));
  SwigluForward(team, {.gate_up = gate_up.view(), .y = z.view()});
  SwigluBackward(team, {.gate_up = gate_up.view(), .dy = dz.view(), .dgate_up = dgate_up.view()});
  for (int i = 0; i < 9; ++i) {
    const double silu = far[i] / (1 + std::exp(-far[i]));
    EXPECT_NEAR(z.at(i), silu, 1e-6 * std::abs(silu) + 1e-30) << far[i];
    EXPECT_NEAR(dgate_up.at(10 + i), silu, 1e-6 * std::abs(silu) + 1e-6) << far[i];
    EXPECT_FALSE(std::isnan(dgate_up.at(i))) << far[i];
  }
  EXPECT_TRUE(std::isnan(z.at(9)));
  EXPECT_TRUE(std::isnan(dgate_up.at(9)));
}

struct RopeCase {
  int64_t rows, sequence, heads, kv_heads, head_size;
};

class RopeTest : public testing::TestWithParam<std::tuple<RopeCase, DType>> {
 protected:
  RopeTest() {
    const RopeCase& c = std::get<0>(GetParam());
    shape_ = {
        .rows = c.rows, .sequence = c.sequence, .heads = c.heads, .kv_heads = c.kv_heads, .head_size = c.head_size};
    width_ = (c.heads + 2 * c.kv_heads) * c.head_size;
    // Far positions too: the angle of the first pair is the position itself.
    for (int64_t i = 0; i < c.rows * c.sequence; ++i) positions_.push_back(static_cast<int32_t>(i * i * 37 % 131072));
  }
  Doubles Reference(const Doubles& qkv, double direction) {
    return reference::Rope(qkv, shape_, 10000.0, direction, positions_);
  }
  AttentionShape shape_;
  int64_t width_;
  std::vector<int32_t> positions_;
  DType dtype_ = std::get<1>(GetParam());
};

TEST_P(RopeTest, BothDirectionsEqualReference) {
  const TestTensor input = TestTensor::Random(dtype_, {shape_.rows * shape_.sequence, width_}, 1);
  TestTensor positions = TestTensor::Integers(positions_);
  for (const Direction direction : {Direction::kForward, Direction::kInverse}) {
    const auto out = OnEveryTeam([&](Team& team) {
      TestTensor qkv = input;
      Rope(team, {.shape = shape_, .direction = direction, .qkv = qkv.view(), .positions = positions.view()});
      return std::vector<TestTensor>{qkv};
    });
    // Sine and cosine to 1e-7, values up to 5, two products.
    ExpectNear(out[0], Reference(input.values(), direction == Direction::kForward ? 1 : -1),
               Rounded(dtype_, {1.5e-6, 0}), "qkv");
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, RopeTest,
                         testing::Combine(testing::Values(RopeCase{1, 1, 1, 1, 2}, RopeCase{2, 3, 2, 1, 6},
                                                          RopeCase{1, 7, 3, 3, 10}, RopeCase{2, 33, 6, 2, 34},
                                                          RopeCase{3, 100, 4, 2, 64}, RopeCase{1, 5, 1, 1, 1024}),
                                          testing::Values(DType::kF32, DType::kBF16)));

// Of Llama 3.1, with the frequencies of a head of 64 in all three ranges, and linear.
TEST(Rope, TurnsLowFrequenciesMoreSlowlyWhereAsked) {
  const AttentionShape shape{.rows = 1, .sequence = 40, .heads = 2, .kv_heads = 1, .head_size = 64};
  const TestTensor input = TestTensor::Random(DType::kF32, {40, 4 * 64}, 1);
  std::vector<int32_t> places;
  for (int32_t i = 0; i < 40; ++i) places.push_back(i * i * 19 % 20000);
  TestTensor positions = TestTensor::Integers(places);
  for (const RopeScaling& scaling : {RopeScaling{.factor = 8, .positions = 8192}, RopeScaling{.factor = 4}}) {
    const auto out = OnEveryTeam([&](Team& team) {
      TestTensor qkv = input;
      Rope(team, {.shape = shape, .scaling = scaling, .qkv = qkv.view(), .positions = positions.view()});
      return std::vector<TestTensor>{qkv};
    });
    ExpectNear(out[0], reference::Rope(input.values(), shape, 10000.0, 1, places, scaling), {1.5e-6, 0}, "qkv");
  }
}

TEST(RopeReference, InverseIsTheGradient) {
  const AttentionShape shape{.rows = 2, .sequence = 3, .heads = 2, .kv_heads = 1, .head_size = 6};
  const std::vector<int32_t> positions = {0, 1, 2, 0, 1, 100};
  const Doubles qkv = RandomDoubles(6 * 24, 1), dy = RandomDoubles(qkv.size(), 2);
  ExpectClose(reference::Rope(dy, shape, 10000.0, -1, positions),
              FiniteDifferences(
                  [&](const Doubles& v) { return Dot(reference::Rope(v, shape, 10000.0, 1, positions), dy); }, qkv),
              1e-7, "dqkv");
}

}  // namespace
}  // namespace sluice::cpu
