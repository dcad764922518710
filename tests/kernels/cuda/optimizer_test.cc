#include "kernels/cuda/optimizer.h"

#include "kernels/cpu/optimizer.h"
#include "kernels/cpu/team.h"
#include "tests/kernels/cuda/on_gpu.h"
#include "tests/kernels/reference_optimizer.h"

namespace sluice::cuda {
namespace {

TEST(SquaredNormTest, EachBlockEqualsReferenceWhereverTensorsLie) {
  for (const int64_t n : {int64_t{1}, int64_t{33}, kNormBlock - 1, kNormBlock, 2 * kNormBlock + 33}) {
    TestTensor gradient = TestTensor::Random(DType::kF32, {n}, 1);
    const auto run = [&](Placement placement) {
      TestTensor partials(DType::kF32, {NormBlocks(n)});
      OnGpu gpu(placement);
      gpu.Finish(SquaredNorm(gpu.stream(), gpu(gradient), gpu(partials)));
      return partials;
    };
    Doubles expected(NormBlocks(n));
    for (int64_t i = 0; i < n; ++i) expected[i / kNormBlock] += gradient.at(i) * gradient.at(i);
    const TestTensor partials = run(Placement::kAligned);
    // Positive terms, 32 in a thread's chain, then 21 more additions.
    ExpectNear(partials, expected, {0, 4e-6}, "partials");
    EXPECT_TRUE(partials.SameBits(run(Placement::kShifted)));
  }
}

// A block's bits don't depend on how many elements follow it: what slices over ranks stand on.
TEST(SquaredNormTest, OfABlockIsTheSameWhateverFollows) {
  TestTensor all = TestTensor::Random(DType::kF32, {kNormBlock + 7}, 1), first(DType::kF32, {kNormBlock});
  for (int64_t i = 0; i < kNormBlock; ++i) first.Set(i, all.at(i));
  TestTensor two(DType::kF32, {2}), one(DType::kF32, {1});
  OnGpu gpu;
  Succeed(SquaredNorm(gpu.stream(), gpu(all), gpu(two)));
  gpu.Finish(SquaredNorm(gpu.stream(), gpu(first), gpu(one)));
  EXPECT_EQ(two.at(0), one.at(0));
}

StepControl Decide(const Doubles& partials, float max_norm) {
  TestTensor in(DType::kF32, {static_cast<int64_t>(partials.size())}, partials), control(DType::kF32, {4});
  OnGpu gpu;
  gpu.Finish(DecideStep(gpu.stream(), gpu(in), max_norm, gpu(control)));
  return *control.view().as<StepControl>();
}

TEST(DecideStepTest, ScalesGradientsOverTheMaximumDown) {
  const StepControl control = Decide({9, 16}, 2.0f);
  EXPECT_FLOAT_EQ(control.norm, 5);
  EXPECT_FLOAT_EQ(control.scale, 2.0 / (5 + 1e-6));
  EXPECT_EQ(control.skip, 0);
  EXPECT_EQ(Decide({9, 16}, 6.0f).scale, 1);
  EXPECT_EQ(Decide({9, 16}, 0.0f).scale, 1) << "0 doesn't clip";
  EXPECT_EQ(Decide({0}, 1.0f).scale, 1);
}

TEST(DecideStepTest, SkipsWhatIsNotFinite) {
  EXPECT_EQ(Decide({1, std::nan(""), 1}, 1.0f).skip, 1);
  EXPECT_EQ(Decide({1, INFINITY}, 1.0f).skip, 1);
  EXPECT_EQ(Decide({3e38, 3e38, 3e38}, 1.0f).skip, 0) << "the sum is taken in double";
}

// The sum is taken in the same order.
TEST(DecideStepTest, HasTheBitsOfTheCpu) {
  for (const int64_t n : {1, 1000, 1024, 1025, 5000}) {
    Doubles values = RandomDoubles(n, 1);
    for (double& value : values) value *= value;
    TestTensor partials(DType::kF32, {n}, values), expected(DType::kF32, {4});
    cpu::Team team(1, {});
    cpu::DecideStep(team, partials.view(), 0.5f, expected.view());
    const StepControl control = Decide(partials.values(), 0.5f);
    EXPECT_EQ(std::memcmp(&control, expected.view().data, sizeof(control)), 0) << n;
  }
}

TEST(GuessStepTest, WhatWouldBeScaledIsNotDoneYet) {
  const auto guess = [&](StepControl decision) {
    TestTensor control(DType::kF32, {4}, {0, 0, 0, 0}), guess(DType::kF32, {4}, {7, 7, 7, 7});
    *control.view().as<StepControl>() = decision;
    OnGpu gpu;
    gpu.Finish(GuessStep(gpu.stream(), gpu(control), gpu(guess)));
    EXPECT_EQ(control.view().as<StepControl>()->skip, decision.skip) << "the decision stays";
    return *guess.view().as<StepControl>();
  };
  EXPECT_EQ(guess({.norm = 3, .scale = 1}).skip, 0);
  EXPECT_EQ(guess({.norm = 3, .scale = 1}).scale, 1);
  EXPECT_EQ(guess({.norm = 3, .scale = 0.99f}).skip, 1);
  EXPECT_EQ(guess({.norm = INFINITY, .scale = 0, .skip = 1}).skip, 1);
}

TestTensor Control(double scale, double skip) { return TestTensor(DType::kF32, {4}, {1.0, scale, skip, 0}); }

TEST(AdamWTest, FiveStepsEqualReference) {
  for (const int64_t n : {1, 7, 1000, 1025}) {
    const AdamWArgs settings{
        .learning_rate = 0.01f, .beta1 = 0.9f, .beta2 = 0.95f, .epsilon = 1e-8f, .weight_decay = 0.1f};
    TestTensor control = Control(0.5, 0), parameter = TestTensor::Random(DType::kF32, {n}, 1);
    TestTensor m(DType::kF32, {n}, Doubles(n, 0.0)), v = m;
    reference::AdamW adam{settings.learning_rate, settings.beta1,     settings.beta2,  settings.epsilon,
                          settings.weight_decay,  parameter.values(), Doubles(n, 0.0), Doubles(n, 0.0)};
    for (int64_t step = 1; step <= 5; ++step) {
      TestTensor gradient = TestTensor::Random(DType::kF32, {n}, 10 + static_cast<int>(step));
      OnGpu gpu(step % 2 == 1 ? Placement::kAligned : Placement::kShifted);
      AdamWArgs args = settings;
      args.parameter = gpu(parameter), args.gradient = gpu(gradient), args.m = gpu(m), args.v = gpu(v);
      args.control = gpu(control), args.step = step;
      gpu.Finish(AdamW(gpu.stream(), args));
      Doubles scaled = gradient.values();
      for (double& g : scaled) g *= 0.5;
      adam.Step(scaled, step);
    }
    // Five steps of some roundings each; the parameter moves by 0.01 a step and keeps its own rounding.
    ExpectNear(parameter, adam.parameter, {2e-7, 3e-7}, "parameter");
    ExpectNear(m, adam.m, {2e-7, 0}, "m");
    ExpectNear(v, adam.v, {0, 1e-6}, "v");
  }
}

TEST(AdamWTest, ASkippedStepLeavesEverythingAsItIs) {
  const TestTensor start = TestTensor::Random(DType::kF32, {100}, 1);
  TestTensor parameter = start, m = start, v = start, control = Control(0, 1);
  TestTensor gradient(DType::kF32, {100});  // NaN
  OnGpu gpu;
  gpu.Finish(AdamW(gpu.stream(), {.parameter = gpu(parameter),
                                  .gradient = gpu(gradient),
                                  .m = gpu(m),
                                  .v = gpu(v),
                                  .control = gpu(control),
                                  .learning_rate = 1,
                                  .weight_decay = 1}));
  for (const TestTensor* tensor : {&parameter, &m, &v}) EXPECT_TRUE(tensor->SameBits(start));
}

// What slices of an optimizer's state over ranks stand on.
TEST(AdamWTest, AnElementDoesNotDependOnTheSlice) {
  constexpr int64_t kElements = 1000, kCut = 333;
  TestTensor gradient = TestTensor::Random(DType::kF32, {kElements}, 2), control = Control(1, 0);
  const TestTensor zero(DType::kF32, {kElements}, Doubles(kElements, 0.0));
  const auto run = [&](std::vector<int64_t> cuts) {
    TestTensor parameter = TestTensor::Random(DType::kF32, {kElements}, 1), m = zero, v = zero;
    OnGpu gpu;
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      const auto slice = [&](TestTensor& t) {
        return TensorView{gpu(t).data + cuts[i] * 4, DType::kF32, {cuts[i + 1] - cuts[i]}};
      };
      Succeed(AdamW(gpu.stream(), {.parameter = slice(parameter),
                                   .gradient = slice(gradient),
                                   .m = slice(m),
                                   .v = slice(v),
                                   .control = gpu(control),
                                   .learning_rate = 0.01f,
                                   .weight_decay = 0.1f}));
    }
    gpu.Finish(cudaSuccess);
    return std::vector<TestTensor>{parameter, m, v};
  };
  const std::vector<TestTensor> whole = run({0, kElements}), cut = run({0, kCut, kElements});
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_TRUE(whole[i].SameBits(cut[i]));
}

}  // namespace
}  // namespace sluice::cuda
