#include "kernels/cpu/optimizer.h"

#include "kernels/cpu/elementwise.h"
#include "tests/kernels/cpu/every_team.h"
#include "tests/kernels/reference_optimizer.h"
#include "tests/kernels/test_tensor.h"

namespace sluice::cpu {
namespace {

const int64_t kSizes[] = {1, 3, 7, 17, 33, 100, 257, kNormBlock - 1, kNormBlock, kNormBlock + 1, 5 * kNormBlock + 33};

TEST(SquaredNormTest, EachBlockEqualsReference) {
  for (const int64_t n : kSizes) {
    TestTensor gradient = TestTensor::Random(DType::kF32, {n}, 1);
    const auto out = OnEveryTeam([&](Team& team) {
      TestTensor partials(DType::kF32, {NormBlocks(n)});
      SquaredNorm(team, gradient.view(), partials.view());
      return std::vector<TestTensor>{partials};
    });
    Doubles expected(NormBlocks(n));
    for (int64_t i = 0; i < n; ++i) expected[i / kNormBlock] += gradient.at(i) * gradient.at(i);
    // Positive terms in at least 16 chains of at most 1024: errors of the root of that times 2^-24.
    ExpectNear(out[0], expected, {0, 4e-6}, "partials");
  }
}

StepControl Decide(const Doubles& partials, float max_norm) {
  TestTensor in(DType::kF32, {static_cast<int64_t>(partials.size())}, partials), control(DType::kF32, {4});
  Team team(1, {});
  DecideStep(team, in.view(), max_norm, control.view());
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

TEST(DecideStepTest, SmallPartialsAreNotLostBesideLargeOnes) {
  Doubles partials(100001, 1e-3);
  partials[0] = 1e6;  // in f32, 1e6 + 1e-3 is 1e6
  EXPECT_FLOAT_EQ(Decide(partials, 0).norm, std::sqrt(1e6 + 100.0));
}

TEST(GuessStepTest, WhatWouldBeScaledIsNotDoneYet) {
  Team team(1, {});
  const auto guess = [&](StepControl decision) {
    TestTensor control(DType::kF32, {4}, {0, 0, 0, 0}), guess(DType::kF32, {4}, {7, 7, 7, 7});
    *control.view().as<StepControl>() = decision;
    GuessStep(team, control.view(), guess.view());
    EXPECT_EQ(control.view().as<StepControl>()->skip, decision.skip) << "the decision stays";
    return *guess.view().as<StepControl>();
  };
  EXPECT_EQ(guess({.norm = 3, .scale = 1}).skip, 0);
  EXPECT_EQ(guess({.norm = 3, .scale = 1}).scale, 1);
  EXPECT_EQ(guess({.norm = 3, .scale = 0.99f}).skip, 1);
  EXPECT_EQ(guess({.norm = INFINITY, .scale = 0, .skip = 1}).skip, 1);
}

TEST(SquaredNormTest, NonFiniteGradientsReachTheDecision) {
  for (const double bad : {std::nan(""), double{INFINITY}, 1e30}) {
    TestTensor gradient(DType::kF32, {33}, Doubles(33, 1.0)), partials(DType::kF32, {1});
    gradient.Set(32, bad);
    Team team(1, {});
    SquaredNorm(team, gradient.view(), partials.view());
    EXPECT_EQ(Decide(partials.values(), 1.0f).skip, 1) << bad;
  }
}

TestTensor Control(double scale, double skip) { return TestTensor(DType::kF32, {4}, {1.0, scale, skip, 0}); }

TEST(AdamWTest, FiveStepsEqualReference) {
  for (const int64_t n : kSizes) {
    const TestTensor start = TestTensor::Random(DType::kF32, {n}, 1);
    const AdamWArgs settings{
        .learning_rate = 0.01f, .beta1 = 0.9f, .beta2 = 0.95f, .epsilon = 1e-8f, .weight_decay = 0.1f};
    TestTensor control = Control(0.5, 0);
    const auto out = OnEveryTeam([&](Team& team) {
      std::vector<TestTensor> state{start, TestTensor(DType::kF32, {n}, Doubles(n, 0.0)),
                                    TestTensor(DType::kF32, {n}, Doubles(n, 0.0))};
      for (int64_t step = 1; step <= 5; ++step) {
        TestTensor gradient = TestTensor::Random(DType::kF32, {n}, 10 + static_cast<int>(step));
        AdamWArgs args = settings;
        args.parameter = state[0].view();
        args.gradient = gradient.view();
        args.m = state[1].view();
        args.v = state[2].view();
        args.control = control.view();
        args.step = step;
        AdamW(team, args);
      }
      return state;
    });
    reference::AdamW adam{settings.learning_rate, settings.beta1, settings.beta2,  settings.epsilon,
                          settings.weight_decay,  start.values(), Doubles(n, 0.0), Doubles(n, 0.0)};
    for (int64_t step = 1; step <= 5; ++step) {
      Doubles gradient = TestTensor::Random(DType::kF32, {n}, 10 + static_cast<int>(step)).values();
      for (double& g : gradient) g *= 0.5;
      adam.Step(gradient, step);
    }
    // Five steps of some roundings each; the parameter moves by 0.01 a step and keeps its own rounding.
    ExpectNear(out[0], adam.parameter, {2e-7, 3e-7}, "parameter");
    ExpectNear(out[1], adam.m, {2e-7, 0}, "m");
    ExpectNear(out[2], adam.v, {0, 1e-6}, "v");
  }
}

TEST(AdamWTest, ASkippedStepLeavesEverythingAsItIs) {
  const TestTensor start = TestTensor::Random(DType::kF32, {100}, 1);
  TestTensor parameter = start, m = start, v = start, control = Control(0, 1);
  TestTensor gradient(DType::kF32, {100});  // NaN
  Team team(2, {});
  AdamW(team, {.parameter = parameter.view(),
               .gradient = gradient.view(),
               .m = m.view(),
               .v = v.view(),
               .control = control.view(),
               .learning_rate = 1,
               .weight_decay = 1});
  for (const TestTensor* tensor : {&parameter, &m, &v}) EXPECT_TRUE(tensor->SameBits(start));
}

// What slices of an optimizer's state over ranks stand on.
TEST(AdamWTest, AnElementDoesNotDependOnTheSlice) {
  constexpr int64_t kElements = 1000, kCut = 333;
  const TestTensor start = TestTensor::Random(DType::kF32, {kElements}, 1);
  TestTensor gradient = TestTensor::Random(DType::kF32, {kElements}, 2), control = Control(1, 0);
  const auto update = [&](TestTensor& p, TestTensor& m, TestTensor& v, int64_t begin, int64_t end) {
    const auto slice = [&](TestTensor& t) { return TensorView{t.view().data + begin * 4, DType::kF32, {end - begin}}; };
    Team team(1, {});
    AdamW(team, {.parameter = slice(p),
                 .gradient = slice(gradient),
                 .m = slice(m),
                 .v = slice(v),
                 .control = control.view(),
                 .learning_rate = 0.01f,
                 .weight_decay = 0.1f});
  };
  TestTensor zero(DType::kF32, {kElements}, Doubles(kElements, 0.0));
  TestTensor p = start, m = zero, v = zero, p2 = start, m2 = zero, v2 = zero;
  update(p, m, v, 0, kElements);
  update(p2, m2, v2, 0, kCut);
  update(p2, m2, v2, kCut, kElements);
  EXPECT_TRUE(p.SameBits(p2) && m.SameBits(m2) && v.SameBits(v2));
}

TEST(SumInOrderTest, AddsLeftToRightAndMayWriteTheFirstPart) {
  for (const int64_t n : kSizes) {
    for (const int count : {1, 2, 5, 64}) {
      std::vector<TestTensor> parts;
      for (int p = 0; p < count; ++p) parts.push_back(TestTensor::Random(DType::kF32, {n}, p));
      const auto out = OnEveryTeam([&](Team& team) {
        std::vector<TestTensor> mine = parts;
        std::vector<TensorView> views;
        for (TestTensor& part : mine) views.push_back(part.view());
        SumInOrder(team, views, views[0]);
        return std::vector<TestTensor>{mine[0]};
      });
      for (int64_t i = 0; i < n; ++i) {
        float sum = static_cast<float>(parts[0].at(i));
        for (int p = 1; p < count; ++p) sum += static_cast<float>(parts[p].at(i));
        ASSERT_EQ(out[0].at(i), sum) << "the bits of this very order, element " << i;
      }
    }
  }
}

TEST(SumInOrderTest, OfBf16IsRoundedOnce) {
  for (const int64_t n : kSizes) {
    std::vector<TestTensor> parts;
    for (int p = 0; p < 5; ++p) parts.push_back(TestTensor::Random(DType::kBF16, {n}, p));
    const auto out = OnEveryTeam([&](Team& team) {
      std::vector<TestTensor> mine = parts;
      std::vector<TensorView> views;
      for (TestTensor& part : mine) views.push_back(part.view());
      SumInOrder(team, views, views[0]);
      return std::vector<TestTensor>{mine[0]};
    });
    for (int64_t i = 0; i < n; ++i) {
      float sum = 0;
      for (const TestTensor& part : parts) sum += static_cast<float>(part.at(i));
      ASSERT_EQ(out[0].at(i), ToFloat(ToBFloat16(sum))) << "element " << i;
    }
  }
}

TEST(AddTest, EqualsReferenceAndMayReplaceEither) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : kSizes) {
      const TestTensor a = TestTensor::Random(dtype, {n}, 1), b = TestTensor::Random(dtype, {n}, 2);
      const auto out = OnEveryTeam([&](Team& team) {
        std::vector<TestTensor> out{TestTensor(dtype, {n}), a, b};
        TestTensor left = a, right = b;
        Add(team, {.a = left.view(), .b = right.view(), .y = out[0].view()});
        Add(team, {.a = out[1].view(), .b = right.view(), .y = out[1].view()});
        Add(team, {.a = left.view(), .b = out[2].view(), .y = out[2].view()});
        return out;
      });
      Doubles expected = a.values();
      for (int64_t i = 0; i < n; ++i) expected[i] += b.at(i);
      ExpectNear(out[0], expected, Rounded(dtype, {0, 6e-8}), "y");
      EXPECT_TRUE(out[1].SameBits(out[0]) && out[2].SameBits(out[0]));
    }
  }
}

// Every sum of a bf16 and a tie, a bit more and a bit less: rounded as ToBFloat16() does, for any lane of a vector.
TEST(AddTest, RoundsBFloat16ToNearestEven) {
  constexpr int64_t kValues = 65536;
  TestTensor a(DType::kBF16, {kValues}), b(DType::kBF16, {kValues}), y(DType::kBF16, {kValues});
  Team team(1, {});
  for (const float fraction : {0.0f, 0x1.0p-8f, 0x1.02p-8f, 0x1.fep-9f, -0x1.0p-8f}) {
    for (int64_t i = 0; i < kValues; ++i) {
      a.view().as<BFloat16>()[i].bits = static_cast<uint16_t>(i);
      b.Set(i, std::isfinite(a.at(i)) && a.at(i) != 0 ? std::ldexp(fraction, std::ilogb(a.at(i))) : 0.0);
    }
    Add(team, {.a = a.view(), .b = b.view(), .y = y.view()});
    for (int64_t i = 0; i < kValues; ++i) {
      const float sum = static_cast<float>(a.at(i)) + static_cast<float>(b.at(i));
      if (std::abs(a.at(i)) < 0x1.0p-100) continue;  // the team flushes denormals, b may be one
      if (std::isnan(sum)) {
        ASSERT_TRUE(std::isnan(y.at(i))) << i;
      } else {
        ASSERT_EQ(y.view().as<BFloat16>()[i].bits, ToBFloat16(sum).bits) << i << " " << fraction;
      }
    }
  }
}

TEST(FillTest, WritesEveryType) {
  Team team(2, {});
  for (const int64_t n : kSizes) {
    for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI32}) {
      TestTensor target(dtype, {n});
      Fill(team, target.view(), -3.0f);
      EXPECT_EQ(target.values(), Doubles(n, -3.0));
    }
  }
}

TEST(CopyTest, CopiesEveryTypeBitByBit) {
  Team team(2, {});
  for (const int64_t n : kSizes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      TestTensor source = TestTensor::Random(dtype, {n}, 1), target(dtype, {n});
      source.Set(n / 2, std::nan(""));
      Copy(team, source.view(), target.view());
      EXPECT_TRUE(target.SameBits(source));
    }
    TestTensor source = TestTensor::Integers(std::vector<int32_t>(n, 7)), target(DType::kI32, {n});
    Copy(team, source.view(), target.view());
    EXPECT_TRUE(target.SameBits(source));
  }
}

}  // namespace
}  // namespace sluice::cpu
