#include "kernels/cuda/elementwise.h"

#include <set>

#include "base/philox.h"
#include "kernels/cpu/dropout.h"
#include "kernels/cpu/hash.h"
#include "kernels/cpu/random_init.h"
#include "kernels/cpu/team.h"
#include "kernels/cuda/dropout.h"
#include "kernels/cuda/hash.h"
#include "kernels/cuda/random_init.h"
#include "tests/kernels/cuda/on_gpu.h"

namespace sluice::cuda {
namespace {

const int64_t kSizes[] = {1, 3, 7, 17, 256, 1000, 2048, 2051};
constexpr RandomKey kKey{.seed = 0x123456789abcdef0u, .name = 0xfedcba9876543210u, .step = 7};

TEST(AddTest, EqualsReferenceAndMayReplaceEither) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : kSizes) {
      for (const Placement placement : {Placement::kAligned, Placement::kShifted}) {
        TestTensor a = TestTensor::Random(dtype, {n}, 1), b = TestTensor::Random(dtype, {n}, 2);
        TestTensor left = a, right = b, y(dtype, {n});
        OnGpu gpu(placement);
        Succeed(Add(gpu.stream(), {.a = gpu(a), .b = gpu(b), .y = gpu(y)}));
        Succeed(Add(gpu.stream(), {.a = gpu(left), .b = gpu(b), .y = gpu(left)}));
        gpu.Finish(Add(gpu.stream(), {.a = gpu(a), .b = gpu(right), .y = gpu(right)}));
        Doubles expected = a.values();
        for (int64_t i = 0; i < n; ++i) expected[i] += b.at(i);
        ExpectNear(y, expected, Rounded(dtype, {0, 6e-8}), "y");
        EXPECT_TRUE(left.SameBits(y) && right.SameBits(y));
      }
    }
  }
}

// Every sum of a bf16 and a tie, a bit more and a bit less: rounded as ToBFloat16() does.
TEST(AddTest, RoundsBFloat16ToNearestEven) {
  for (const float fraction : {0.0f, 0x1.0p-8f, 0x1.02p-8f, 0x1.fep-9f, -0x1.0p-8f}) {
    constexpr int64_t kValues = 2048;
    TestTensor a(DType::kBF16, {kValues}), b(DType::kBF16, {kValues}), y(DType::kBF16, {kValues});
    for (int64_t i = 0; i < kValues; ++i) {
      a.view().as<BFloat16>()[i].bits = static_cast<uint16_t>(0x3f00 + i);
      b.Set(i, std::ldexp(fraction, std::ilogb(a.at(i))));
    }
    OnGpu gpu;
    gpu.Finish(Add(gpu.stream(), {.a = gpu(a), .b = gpu(b), .y = gpu(y)}));
    for (int64_t i = 0; i < kValues; ++i) {
      const float sum = static_cast<float>(a.at(i)) + static_cast<float>(b.at(i));
      ASSERT_EQ(y.view().as<BFloat16>()[i].bits, ToBFloat16(sum).bits) << i << " " << fraction;
    }
  }
}

TEST(SumInOrderTest, AddsLeftToRightAndMayWriteTheFirstPart) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {int64_t{7}, int64_t{2051}}) {
      for (const int count : {1, 2, 5, 64}) {
        std::vector<TestTensor> parts;
        for (int p = 0; p < count; ++p) parts.push_back(TestTensor::Random(dtype, {n}, p));
        std::vector<TestTensor> mine = parts;
        OnGpu gpu(n == 7 ? Placement::kShifted : Placement::kAligned);
        std::vector<TensorView> views;
        for (TestTensor& part : mine) views.push_back(gpu(part));
        gpu.Finish(SumInOrder(gpu.stream(), views, views[0]));
        TestTensor expected(dtype, {n});
        for (int64_t i = 0; i < n; ++i) {
          float sum = static_cast<float>(parts[0].at(i));
          for (int p = 1; p < count; ++p) sum += static_cast<float>(parts[p].at(i));
          expected.Set(i, sum);
        }
        EXPECT_TRUE(mine[0].SameBits(expected)) << "the bits of this very order";
      }
    }
  }
}

TEST(FillTest, WritesEveryType) {
  for (const int64_t n : kSizes) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI32}) {
      TestTensor target(dtype, {n});
      OnGpu gpu(n % 2 == 1 ? Placement::kShifted : Placement::kAligned);
      gpu.Finish(Fill(gpu.stream(), gpu(target), -3.0f));
      EXPECT_EQ(target.values(), Doubles(n, -3.0));
    }
  }
}

TEST(CopyTest, CopiesEveryTypeBitByBit) {
  for (const int64_t n : kSizes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      TestTensor source = TestTensor::Random(dtype, {n}, 1), target(dtype, {n});
      source.Set(n / 2, std::nan(""));
      OnGpu gpu;
      gpu.Finish(Copy(gpu.stream(), gpu(source), gpu(target)));
      EXPECT_TRUE(target.SameBits(source));
    }
  }
}

TEST(CastTest, RoundsToNearestEven) {
  for (const int64_t n : kSizes) {
    TestTensor source = TestTensor::Random(DType::kF32, {n}, 1), target(DType::kBF16, {n});
    source.Set(n / 2, 1 + 0x1.0p-8);
    OnGpu gpu(n % 2 == 1 ? Placement::kShifted : Placement::kAligned);
    gpu.Finish(CastToBFloat16(gpu.stream(), gpu(source), gpu(target)));
    EXPECT_TRUE(target.SameBits(TestTensor(DType::kBF16, {n}, source.values())));
  }
}

struct DropoutCase {
  int64_t samples, tokens, columns;
  float rate;
};

class DropoutTest : public testing::TestWithParam<std::tuple<DropoutCase, DType>> {
 protected:
  // On the GPU, and on the CPU.
  struct Both {
    TestTensor gpu, cpu;
  };
  Both Run(TestTensor x, TestTensor* add, DropoutArgs args) {
    const Shape shape = x.view().shape;
    Both y{TestTensor(x.dtype(), shape), TestTensor(x.dtype(), shape)};
    args.samples = samples_.view(), args.x = x.view(), args.y = y.cpu.view();
    if (add != nullptr) args.add = add->view();
    cpu::Team team(1, {});
    cpu::Dropout(team, args);
    OnGpu gpu;
    args.samples = gpu(samples_), args.x = gpu(x), args.y = gpu(y.gpu);
    if (add != nullptr) args.add = gpu(*add);
    gpu.Finish(Dropout(gpu.stream(), args));
    return y;
  }
  DropoutCase case_ = std::get<0>(GetParam());
  DType dtype_ = std::get<1>(GetParam());
  Shape shape_{case_.samples * case_.tokens, case_.columns};
  TestTensor samples_ = TestTensor::Integers({1000008, 5, 77});
};

TEST_P(DropoutTest, HasTheBitsOfTheCpu) {
  samples_ = TestTensor::Integers(std::vector<int32_t>(case_.samples, 1000008));
  TestTensor x = TestTensor::Random(dtype_, shape_, 1), add = TestTensor::Random(dtype_, shape_, 2);
  for (int64_t i = 0; i < x.elements(); i += 5) x.Set(i, -0.0);
  const Both plain = Run(x, nullptr, {.key = kKey, .rate = case_.rate});
  EXPECT_TRUE(plain.gpu.SameBits(plain.cpu));
  const Both residual = Run(x, &add, {.key = kKey, .rate = case_.rate});
  EXPECT_TRUE(residual.gpu.SameBits(residual.cpu));
}

INSTANTIATE_TEST_SUITE_P(Shapes, DropoutTest,
                         testing::Combine(testing::Values(DropoutCase{1, 1, 1, 0.5f}, DropoutCase{2, 3, 7, 0.1f},
                                                          DropoutCase{3, 1, 33, 0.9f}, DropoutCase{2, 10, 264, 0.2f},
                                                          DropoutCase{3, 5, 64, 0.0f}),
                                          testing::Values(DType::kF32, DType::kBF16)));

class DropoutPartTest : public DropoutTest {};

// Tokens of three samples of 3: the end of one, a whole one, the beginning of another; a width that cuts quads of
// random numbers, and one that doesn't.
TEST_P(DropoutPartTest, OfSomeOfTheTokensHasTheBitsOfTheCpu) {
  TestTensor add = TestTensor::Random(dtype_, {6, case_.columns}, 2);
  for (const int first : {0, 2, 3}) {
    const Both y = Run(TestTensor::Random(dtype_, {6, case_.columns}, 1), &add,
                       {.key = kKey, .rate = case_.rate, .sequence = 3, .first_token = first});
    EXPECT_TRUE(y.gpu.SameBits(y.cpu)) << first;
  }
}

// x and add may each be y.
TEST_P(DropoutPartTest, MayReplaceItsInputs) {
  TestTensor x = TestTensor::Random(dtype_, shape_, 1), add = TestTensor::Random(dtype_, shape_, 2);
  const TestTensor expected = Run(x, &add, {.key = kKey, .rate = case_.rate}).cpu;
  TestTensor instead_of_x = x, instead_of_add = add;
  OnGpu gpu;
  DropoutArgs args{.key = kKey, .rate = case_.rate, .samples = gpu(samples_), .x = gpu(instead_of_x), .add = gpu(add)};
  args.y = args.x;
  Succeed(Dropout(gpu.stream(), args));
  args.x = gpu(x), args.add = args.y = gpu(instead_of_add);
  gpu.Finish(Dropout(gpu.stream(), args));
  EXPECT_TRUE(instead_of_x.SameBits(expected) && instead_of_add.SameBits(expected));
}

INSTANTIATE_TEST_SUITE_P(Shapes, DropoutPartTest,
                         testing::Combine(testing::Values(DropoutCase{3, 3, 33, 0.3f}, DropoutCase{3, 3, 40, 0.3f}),
                                          testing::Values(DType::kF32, DType::kBF16)));

// Computed in double and rounded once on both: they differ by a unit in the last place at most.
TEST(InitNormalTest, EqualsTheCpuForAWholeTensorAndForABlock) {
  cpu::Team team(1, {});
  for (const InitNormalArgs& settings :
       {InitNormalArgs{.key = kKey, .deviation = 0.02f}, InitNormalArgs{.key = kKey, .deviation = 1, .first = 37 * 5},
        InitNormalArgs{.key = kKey, .deviation = 1, .first = 19, .stride = 37}}) {
    InitNormalArgs args = settings;
    TestTensor target(DType::kF32, {13, 18}), expected(DType::kF32, {13, 18});
    args.target = expected.view();
    cpu::InitNormal(team, args);
    OnGpu gpu;
    args.target = gpu(target);
    gpu.Finish(InitNormal(gpu.stream(), args));
    ExpectNear(target, expected.values(), {1e-15, 1.2e-7}, "target");
  }
}

uint64_t HashOnGpu(TestTensor source, Placement placement = Placement::kAligned) {
  TestTensor hash(DType::kI32, {2});
  OnGpu gpu(placement);
  gpu.Finish(Hash(gpu.stream(), gpu(source), gpu(hash), gpu.Scratch(HashWorkspaceBytes(source.view().bytes()))));
  uint64_t result;
  std::memcpy(&result, hash.view().data, sizeof(result));
  return result;
}

TEST(HashTest, IsThatOfTheCpu) {
  cpu::Team team(1, {});
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {1, 2, 15, 16, 17, 1000, 16384, 16385, 40003}) {
      TestTensor source = TestTensor::Random(dtype, {n}, 1), hash(DType::kI32, {2});
      cpu::Hash(team, source.view(), hash.view());
      uint64_t expected;
      std::memcpy(&expected, hash.view().data, sizeof(expected));
      EXPECT_EQ(HashOnGpu(source), expected) << n;
      EXPECT_EQ(HashOnGpu(source, Placement::kShifted), expected) << n;
    }
  }
}

}  // namespace
}  // namespace sluice::cuda
