#include "kernels/cuda/activation.h"

#include "kernels/cuda/rope.h"
#include "tests/kernels/cuda/on_gpu.h"
#include "tests/kernels/reference_activation.h"

namespace sluice::cuda {
namespace {

class ActivationTest : public testing::TestWithParam<MatrixCase> {
 protected:
  DType dtype_ = GetParam().dtype;
  Shape shape_{GetParam().rows, GetParam().columns}, double_shape_{GetParam().rows, 2 * GetParam().columns};
  TestTensor x_ = TestTensor::Random(dtype_, shape_, 1, 3.0), dy_ = TestTensor::Random(dtype_, shape_, 2);
  TestTensor gate_up_ = TestTensor::Random(dtype_, double_shape_, 3, 3.0);
};

// The result of run(gpu, result), the same bits wherever tensors lie.
TestTensor AnywhereTheSame(const TestTensor& start, const std::function<cudaError_t(OnGpu&, TestTensor&)>& run) {
  TestTensor result = start, shifted = start;
  {
    OnGpu gpu(Placement::kAligned);
    gpu.Finish(run(gpu, result));
  }
  OnGpu gpu(Placement::kShifted);
  gpu.Finish(run(gpu, shifted));
  EXPECT_TRUE(result.SameBits(shifted));
  return result;
}

TEST_P(ActivationTest, GeluEqualsReference) {
  const TestTensor y = AnywhereTheSame(TestTensor(dtype_, shape_), [&](OnGpu& gpu, TestTensor& y) {
    return GeluForward(gpu.stream(), {.x = gpu(x_), .y = gpu(y)});
  });
  // Relative, in the tail of negative x too: e^-z with |z| up to 60 carries |z| units in the last place of z.
  ExpectNear(y, reference::Map(x_.values(), reference::Gelu), Rounded(dtype_, {1e-12, 8e-6}), "y");
}

TEST_P(ActivationTest, GeluGradientEqualsReferenceAndMayReplaceDy) {
  const TestTensor dx = AnywhereTheSame(dy_, [&](OnGpu& gpu, TestTensor& dx) {
    return GeluBackward(gpu.stream(), {.x = gpu(x_), .dy = gpu(dx), .dx = gpu(dx)});
  });
  Doubles expected = reference::Map(x_.values(), reference::GeluDerivative);
  for (int64_t i = 0; i < dy_.elements(); ++i) expected[i] *= dy_.at(i);
  // The derivative is of order 1, a sum of terms of opposite sign near its zero: some units of 2^-24, times dy up to 5.
  ExpectNear(dx, expected, Rounded(dtype_, {4e-6, 1e-6}), "dx");
}

TEST_P(ActivationTest, SwigluEqualsReference) {
  const TestTensor y = AnywhereTheSame(TestTensor(dtype_, shape_), [&](OnGpu& gpu, TestTensor& y) {
    return SwigluForward(gpu.stream(), {.gate_up = gpu(gate_up_), .y = gpu(y)});
  });
  ExpectNear(y, reference::Swiglu(gate_up_.values(), shape_[0]), Rounded(dtype_, {0, 2e-6}), "y");
}

TEST_P(ActivationTest, SwigluGradientEqualsReference) {
  const TestTensor dgate_up = AnywhereTheSame(TestTensor(dtype_, double_shape_), [&](OnGpu& gpu, TestTensor& out) {
    return SwigluBackward(gpu.stream(), {.gate_up = gpu(gate_up_), .dy = gpu(dy_), .dgate_up = gpu(out)});
  });
  // As for GELU, with dy * up reaching 40.
  ExpectNear(dgate_up, reference::SwigluGradient(gate_up_.values(), dy_.values(), shape_[0]),
             Rounded(dtype_, {1e-5, 2e-6}), "dgate_up");
}

INSTANTIATE_TEST_SUITE_P(Shapes, ActivationTest, testing::ValuesIn(GpuMatrixCases()));

// Neither overflow nor NaN far out, where kernels stop at a limit, and a NaN stays one.
TEST(ActivationLimits, AreZeroAndTheIdentity) {
  const Doubles far = {-1e30, -200, -90, -12, -0.0, 12, 90, 200, 1e30, std::nan("")};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const double relative = dtype == DType::kF32 ? 1e-6 : 0x1.0p-8;
    TestTensor x(dtype, {10}, far), y(dtype, {10}), dx(dtype, {10}, Doubles(10, 1.0));
    TestTensor gate_up(dtype, {1, 20}, Doubles(20, 1.0)), dgate_up(dtype, {1, 20});
    for (int i = 0; i < 10; ++i) gate_up.Set(i, far[i]);
    TestTensor z(dtype, {1, 10}), dz(dtype, {1, 10}, Doubles(10, 1.0));
    OnGpu gpu;
    Succeed(GeluForward(gpu.stream(), {.x = gpu(x), .y = gpu(y)}));
    Succeed(GeluBackward(gpu.stream(), {.x = gpu(x), .dy = gpu(dx), .dx = gpu(dx)}));
    Succeed(SwigluForward(gpu.stream(), {.gate_up = gpu(gate_up), .y = gpu(z)}));
    gpu.Finish(SwigluBackward(gpu.stream(), {.gate_up = gpu(gate_up), .dy = gpu(dz), .dgate_up = gpu(dgate_up)}));
    for (int i = 0; i < 9; ++i) {
      const double silu = far[i] / (1 + std::exp(-far[i]));
      EXPECT_NEAR(y.at(i), std::max(far[i], 0.0), std::max(far[i] * relative, 1e-30)) << far[i];
      EXPECT_NEAR(dx.at(i), far[i] == 0 ? 0.5 : far[i] > 0, 1e-6) << far[i];
      EXPECT_NEAR(z.at(i), silu, relative * std::abs(silu) + 1e-30) << far[i];
      EXPECT_NEAR(dgate_up.at(10 + i), silu, relative * std::abs(silu) + 1e-6) << far[i];
      EXPECT_FALSE(std::isnan(dgate_up.at(i))) << far[i];
    }
    for (const double value : {y.at(9), dx.at(9), z.at(9), dgate_up.at(9), dgate_up.at(19)}) {
      EXPECT_TRUE(std::isnan(value));
    }
  }
}

class RopeTest : public testing::TestWithParam<std::tuple<AttentionShape, DType>> {};

TEST_P(RopeTest, BothDirectionsEqualReference) {
  const auto [shape, dtype] = GetParam();
  const int64_t tokens = shape.rows * shape.sequence, width = (shape.heads + 2 * shape.kv_heads) * shape.head_size;
  // Far positions too: the angle of the first pair is the position itself.
  std::vector<int32_t> places;
  for (int64_t i = 0; i < tokens; ++i) places.push_back(static_cast<int32_t>(i * i * 37 % 131072));
  const TestTensor input = TestTensor::Random(dtype, {tokens, width}, 1);
  TestTensor positions = TestTensor::Integers(places);
  const RopeScaling scaling{.factor = shape.kv_heads == 2 ? 8.0f : 1.0f, .positions = 8192};
  for (const Direction direction : {Direction::kForward, Direction::kInverse}) {
    const TestTensor turned = AnywhereTheSame(input, [&, shape = shape](OnGpu& gpu, TestTensor& qkv) {
      return Rope(gpu.stream(), {.shape = shape,
                                 .scaling = scaling,
                                 .direction = direction,
                                 .qkv = gpu(qkv),
                                 .positions = gpu(positions)});
    });
    const double sign = direction == Direction::kForward ? 1 : -1;
    // Sine and cosine to 1e-7, values up to 5, two products.
    ExpectNear(turned, reference::Rope(input.values(), shape, 10000.0, sign, places, scaling),
               Rounded(dtype, {1.5e-6, 0}), "qkv");
  }
}

AttentionShape RopeShape(int64_t rows, int64_t sequence, int64_t heads, int64_t kv_heads, int64_t head_size) {
  return {.rows = rows, .sequence = sequence, .heads = heads, .kv_heads = kv_heads, .head_size = head_size};
}
INSTANTIATE_TEST_SUITE_P(Shapes, RopeTest,
                         testing::Combine(testing::Values(RopeShape(1, 1, 1, 1, 2), RopeShape(2, 3, 2, 1, 6),
                                                          RopeShape(1, 7, 3, 3, 10), RopeShape(2, 5, 4, 2, 64),
                                                          RopeShape(1, 3, 3, 1, 128), RopeShape(1, 2, 1, 1, 1024)),
                                          testing::Values(DType::kF32, DType::kBF16)));

}  // namespace
}  // namespace sluice::cuda
