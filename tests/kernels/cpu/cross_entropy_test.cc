#include "kernels/cpu/cross_entropy.h"

#include "kernels/cpu/embedding.h"
#include "tests/kernels/cpu/reference_loss.h"
#include "tests/kernels/cpu/test_tensor.h"

namespace sluice::cpu {
namespace {

// Every fifth target is ignored.
std::vector<int32_t> RandomTargets(int64_t rows, int64_t columns) {
  std::mt19937 generator(9);
  std::vector<int32_t> targets;
  for (int64_t row = 0; row < rows; ++row)
    targets.push_back(static_cast<int32_t>(row % 5 == 3 ? -1 : generator() % columns));
  return targets;
}

class CrossEntropyTest : public testing::TestWithParam<MatrixCase> {
 protected:
  CrossEntropyTest()
      : shape_{GetParam().rows, GetParam().columns},
        dtype_(GetParam().dtype),
        logits_(TestTensor::Random(dtype_, shape_, 1, 4.0)),
        target_list_(RandomTargets(shape_[0], shape_[1])),
        targets_(TestTensor::Integers(target_list_)),
        lse_(DType::kF32, {shape_[0]}) {
    const Doubles logits = logits_.values();
    for (int64_t row = 0; row < shape_[0]; ++row) lse_.Set(row, reference::LogSumExp(logits, row, shape_[1]));
  }
  Shape shape_;
  DType dtype_;
  TestTensor logits_;
  std::vector<int32_t> target_list_;
  TestTensor targets_, lse_;
};

TEST_P(CrossEntropyTest, ForwardEqualsReference) {
  const auto out = OnEveryTeam([&](Team& team) {
    std::vector<TestTensor> out{TestTensor(DType::kF32, {shape_[0]}), TestTensor(DType::kF32, {1})};
    CrossEntropyForward(
        team, {.logits = logits_.view(), .targets = targets_.view(), .lse = out[0].view(), .total = out[1].view()});
    return out;
  });
  // lse up to 20 is rounded by 1e-6; up to 16,500 exponentials are summed in four chains a lane, which without vectors
  // means 4,100 roundings of 6e-8 in a row. The total adds up to 257 such rows of either sign.
  ExpectNear(out[0], lse_.values(), {1e-5, 0}, "lse");
  ExpectNear(out[1], {reference::CrossEntropy(logits_.values(), target_list_, shape_[1])}, {2e-5, 1e-6}, "total");
}

// In place, and from f32 logits into bf16 gradients.
TEST_P(CrossEntropyTest, BackwardEqualsReference) {
  constexpr float kScale = 0.25f;
  const auto out = OnEveryTeam([&](Team& team) {
    std::vector<TestTensor> out{logits_, TestTensor(DType::kBF16, shape_)};
    CrossEntropyBackward(team, {.logits = out[0].view(),
                                .targets = targets_.view(),
                                .lse = lse_.view(),
                                .scale = kScale,
                                .dlogits = out[0].view()});
    CrossEntropyBackward(team, {.logits = logits_.view(),
                                .targets = targets_.view(),
                                .lse = lse_.view(),
                                .scale = kScale,
                                .dlogits = out[1].view()});
    return out;
  });
  const Doubles expected = reference::CrossEntropyGradient(logits_.values(), target_list_, shape_[1], kScale);
  // The exponent is a difference of numbers up to 20, each rounded to 1e-6, times scale; p - 1 is absolutely as good.
  const Tolerance f32{kScale * 2e-6, 3e-6};
  ExpectNear(out[0], expected, Rounded(dtype_, f32), "in place");
  ExpectNear(out[1], expected, Rounded(DType::kBF16, f32), "bf16");
}

INSTANTIATE_TEST_SUITE_P(Shapes, CrossEntropyTest, testing::ValuesIn(MatrixCases()));

TEST(LossReference, GradientsEqualFiniteDifferences) {
  const std::vector<int32_t> targets = {2, -1, 0, 6}, tokens = {1, 4, 1, 0}, positions = {0, 1, 0, 2};
  const Doubles logits = RandomDoubles(28, 1);
  ExpectClose(reference::CrossEntropyGradient(logits, targets, 7, 0.5),
              FiniteDifferences([&](const Doubles& v) { return 0.5 * reference::CrossEntropy(v, targets, 7); }, logits),
              1e-8, "dlogits");
  const Doubles table = RandomDoubles(15, 2), position_table = RandomDoubles(9, 3), dy = RandomDoubles(12, 4);
  ExpectClose(
      reference::EmbeddingGradient(dy, tokens, 5, 3),
      FiniteDifferences(
          [&](const Doubles& v) { return Dot(reference::Embedding(v, position_table, tokens, positions, 3), dy); },
          table),
      1e-8, "dtable");
  ExpectClose(
      reference::EmbeddingGradient(dy, positions, 3, 3),
      FiniteDifferences([&](const Doubles& v) { return Dot(reference::Embedding(table, v, tokens, positions, 3), dy); },
                        position_table),
      1e-8, "dposition_table");
}

TEST(CrossEntropyLimits, LargeLogitsNeitherOverflowNorLoseTheLoss) {
  TestTensor logits(DType::kF32, {2, 3}, {1e30, -1e30, 0, -300, -300, -300});
  TestTensor targets = TestTensor::Integers({0, 1}), lse(DType::kF32, {2}), total(DType::kF32, {1});
  Team team(1, {});
  CrossEntropyForward(team,
                      {.logits = logits.view(), .targets = targets.view(), .lse = lse.view(), .total = total.view()});
  EXPECT_FLOAT_EQ(lse.at(0), 1e30f);
  EXPECT_NEAR(total.at(0), std::log(3), 2e-5);  // lse near -299 is rounded to 1.5e-5
}

TEST(CrossEntropyLimits, NaNReachesTheTotal) {
  for (const int place : {0, 5, 9, 16}) {
    TestTensor logits = TestTensor::Random(DType::kF32, {2, 17}, 1);
    logits.Set(17 + place, std::nan(""));
    TestTensor targets = TestTensor::Integers({0, 1}), lse(DType::kF32, {2}), total(DType::kF32, {1});
    Team team(1, {});
    CrossEntropyForward(team,
                        {.logits = logits.view(), .targets = targets.view(), .lse = lse.view(), .total = total.view()});
    EXPECT_TRUE(std::isnan(total.at(0))) << place;
  }
}

// With lse = 0 the gradient is e^x itself: the accuracy that simd_math-inl.h states, over the whole range of f32.
TEST(CrossEntropyLimits, ExponentialIsGoodToTwoUnitsInTheLastPlace) {
  constexpr int64_t kPoints = 500001;
  TestTensor logits(DType::kF32, {1, kPoints}), dlogits(DType::kF32, {1, kPoints});
  for (int64_t i = 0; i < kPoints; ++i) logits.Set(i, -87.0 + 175.7 * i / (kPoints - 1));
  TestTensor targets = TestTensor::Integers({kPoints - 1}), lse(DType::kF32, {1}, {0.0});
  Team team(2, {});
  CrossEntropyBackward(
      team, {.logits = logits.view(), .targets = targets.view(), .lse = lse.view(), .dlogits = dlogits.view()});
  double worst = 0;
  for (int64_t i = 0; i < kPoints - 1; ++i) {
    const double exact = std::exp(logits.at(i));
    const double unit = std::ldexp(1.0, std::ilogb(exact) - 23);
    worst = std::max(worst, std::abs(dlogits.at(i) - exact) / unit);
  }
  EXPECT_LE(worst, 2.0);
  RecordProperty("worst_units", std::to_string(worst));
}

TEST(CrossEntropyDeathTest, RefusesATargetBeyondTheVocabulary) {
  TestTensor logits = TestTensor::Random(DType::kF32, {1, 7}, 1), targets = TestTensor::Integers({7});
  TestTensor lse(DType::kF32, {1}), total(DType::kF32, {1});
  Team team(1, {});
  EXPECT_DEATH(
      CrossEntropyForward(
          team, {.logits = logits.view(), .targets = targets.view(), .lse = lse.view(), .total = total.view()}),
      "target of row 0");
}

class EmbeddingTest : public testing::TestWithParam<MatrixCase> {
 protected:
  static constexpr int64_t kVocabulary = 11, kPositions = 300;
  EmbeddingTest() : shape_{GetParam().rows, GetParam().columns}, dtype_(GetParam().dtype) {
    for (int64_t row = 0; row < shape_[0]; ++row) {
      tokens_.push_back(static_cast<int32_t>(row * row % (kVocabulary - 1)));  // the last one never occurs
      positions_.push_back(static_cast<int32_t>(row % kPositions));
    }
  }
  Shape shape_;
  DType dtype_;
  std::vector<int32_t> tokens_, positions_;
};

TEST_P(EmbeddingTest, ForwardEqualsReference) {
  TestTensor table = TestTensor::Random(DType::kF32, {kVocabulary, shape_[1]}, 1);
  TestTensor position_table = TestTensor::Random(DType::kF32, {kPositions, shape_[1]}, 2);
  TestTensor tokens = TestTensor::Integers(tokens_), positions = TestTensor::Integers(positions_);
  for (const bool with_positions : {false, true}) {
    const auto out = OnEveryTeam([&](Team& team) {
      TestTensor y(dtype_, shape_);
      EmbeddingForward(team, {.tokens = tokens.view(),
                              .positions = with_positions ? positions.view() : TensorView{},
                              .table = table.view(),
                              .position_table = with_positions ? position_table.view() : TensorView{},
                              .y = y.view()});
      return std::vector<TestTensor>{y};
    });
    // One addition.
    ExpectNear(out[0],
               reference::Embedding(table.values(), with_positions ? position_table.values() : Doubles(), tokens_,
                                    positions_, shape_[1]),
               Rounded(dtype_, {0, 6e-8}), "y");
  }
}

TEST_P(EmbeddingTest, GradientEqualsReference) {
  TestTensor indices = TestTensor::Integers(tokens_), dy = TestTensor::Random(dtype_, shape_, 1);
  const TestTensor before = TestTensor::Random(DType::kF32, {kVocabulary, shape_[1]}, 2);
  Doubles expected = reference::EmbeddingGradient(dy.values(), tokens_, kVocabulary, shape_[1]);
  for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
    const auto out = OnEveryTeam([&](Team& team) {
      TestTensor dtable = accumulate == Accumulate::kAdd ? before : TestTensor(DType::kF32, {kVocabulary, shape_[1]});
      EmbeddingGradient(
          team, {.indices = indices.view(), .dy = dy.view(), .dtable = dtable.view(), .accumulate = accumulate});
      return std::vector<TestTensor>{dtable};
    });
    if (accumulate == Accumulate::kAdd) {
      for (int64_t i = 0; i < before.elements(); ++i) expected[i] += before.at(i);
    }
    // Up to some 80 terms of order 1 in a row of the table.
    ExpectNear(out[0], expected, {1e-5, 1e-6}, "dtable");
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, EmbeddingTest, testing::ValuesIn(MatrixCases()));

TEST(EmbeddingDeathTest, RefusesATokenBeyondTheTable) {
  TestTensor table = TestTensor::Random(DType::kF32, {5, 3}, 1), tokens = TestTensor::Integers({5}),
             y(DType::kF32, {1, 3});
  Team team(1, {});
  EXPECT_DEATH(EmbeddingForward(team, {.tokens = tokens.view(), .table = table.view(), .y = y.view()}),
               "token 5 with a table of \\[5, 3\\]");
}

}  // namespace
}  // namespace sluice::cpu
