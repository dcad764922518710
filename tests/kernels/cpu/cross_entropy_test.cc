#include "kernels/cpu/cross_entropy.h"

#include "kernels/cpu/embedding.h"
#include "tests/kernels/cpu/every_team.h"
#include "tests/kernels/reference_loss.h"
#include "tests/kernels/test_tensor.h"

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
        logits_(TestTensor::Random(DType::kF32, shape_, 1, 4.0)),
        target_list_(RandomTargets(shape_[0], shape_[1])),
        targets_(TestTensor::Integers(target_list_)) {}

  // Losses, total, and dlogits where they are wanted.
  std::vector<TestTensor> Run(Team& team, const CrossEntropyArgs& with) {
    std::vector<TestTensor> out{TestTensor(DType::kF32, {shape_[0]}), TestTensor(DType::kF32, {1}, {2.0})};
    CrossEntropyArgs args = with;
    args.logits = logits_.view();
    args.targets = targets_.view();
    args.losses = out[0].view();
    args.total = out[1].view();
    CrossEntropy(team, args);
    return out;
  }

  Shape shape_;
  DType dtype_;  // of the gradient
  TestTensor logits_;
  std::vector<int32_t> target_list_;
  TestTensor targets_;
};

TEST_P(CrossEntropyTest, LossesEqualReference) {
  const Doubles logits = logits_.values();
  Doubles losses;
  for (int64_t row = 0; row < shape_[0]; ++row) {
    const int32_t target = target_list_[row];
    losses.push_back(target < 0 ? 0 : reference::LogSumExp(logits, row, shape_[1]) - logits[row * shape_[1] + target]);
  }
  const double total = reference::CrossEntropy(logits, target_list_, shape_[1]);
  for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
    const auto out = OnEveryTeam([&](Team& team) { return Run(team, {.accumulate = accumulate}); });
    // Pieces of 2,048 exponentials are summed in four chains a lane, which without vectors means 512 roundings of 6e-8.
    ExpectNear(out[0], losses, {1e-5, 1e-6}, "losses");
    ExpectNear(out[1], {total + (accumulate == Accumulate::kAdd ? 2 : 0)}, {2e-5, 1e-6}, "total");
  }
}

TEST_P(CrossEntropyTest, GradientEqualsReferenceAndLeavesTheLossesTheirBits) {
  constexpr float kScale = 0.25f;
  const TestTensor before = logits_;
  const auto only_losses = OnEveryTeam([&](Team& team) { return Run(team, {}); });
  const auto out = OnEveryTeam([&](Team& team) {
    logits_ = before;
    TestTensor dlogits(dtype_, shape_);  // f32: in place
    const bool in_place = dtype_ == DType::kF32;
    std::vector<TestTensor> out = Run(team, {.scale = kScale, .dlogits = in_place ? logits_.view() : dlogits.view()});
    out.push_back(in_place ? logits_ : dlogits);
    return out;
  });
  const Doubles expected = reference::CrossEntropyGradient(before.values(), target_list_, shape_[1], kScale);
  // The exponent is a difference of numbers up to 20, each rounded to 1e-6, times scale; p - 1 is absolutely as good.
  ExpectNear(out[2], expected, Rounded(dtype_, {kScale * 2e-6, 3e-6}), "dlogits");
  for (const size_t i : {0, 1}) EXPECT_EQ(out[i].values(), only_losses[i].values());
}

// Columns [first, first + count) as a tensor of their own.
TestTensor ColumnsOf(const TestTensor& logits, int64_t rows, int64_t first, int64_t count) {
  TestTensor part(DType::kF32, {rows, count});
  const int64_t columns = logits.elements() / rows;
  for (int64_t i = 0; i < rows * count; ++i) part.Set(i, logits.at(i / count * columns + first + i % count));
  return part;
}

// In up to three parts, none of which sees the others' logits.
TEST_P(CrossEntropyTest, OfPartsEqualsReference) {
  constexpr float kScale = 0.25f;
  const int64_t rows = shape_[0], columns = shape_[1], parts = std::min<int64_t>(3, columns);
  const TestTensor before = logits_;
  const Doubles gradient = reference::CrossEntropyGradient(before.values(), target_list_, columns, kScale);
  TestTensor statistics(DType::kF32, {parts, rows, 3});
  Team team(2, {});
  const auto range = [&](int64_t p) { return RowRange{.first = p * columns / parts, .vocabulary = columns}; };
  const auto part_of = [&](int64_t p) {
    return ColumnsOf(before, rows, range(p).first, (p + 1) * columns / parts - range(p).first);
  };
  for (int64_t p = 0; p < parts; ++p) {
    TestTensor part = part_of(p);
    LogitStatistics(team, {.logits = part.view(),
                           .targets = targets_.view(),
                           .columns = range(p),
                           .statistics = {statistics.view().data + 12 * rows * p, DType::kF32, {rows, 3}}});
  }
  for (int64_t p = 0; p < parts; ++p) {
    logits_ = part_of(p);
    TestTensor dlogits(dtype_, logits_.view().shape);
    const auto out = Run(team, {.columns = range(p),
                                .statistics = statistics.view(),
                                .scale = kScale,
                                .dlogits = dtype_ == DType::kF32 ? logits_.view() : dlogits.view()});
    const double total = reference::CrossEntropy(before.values(), target_list_, columns);
    // As of whole logits, and a rounding more of the sums of exponentials.
    ExpectNear(out[1], {total}, {2e-5, 1e-6}, "total");
    Doubles expected;
    const int64_t count = logits_.view().columns();
    for (int64_t i = 0; i < rows * count; ++i) {
      expected.push_back(gradient[i / count * columns + range(p).first + i % count]);
    }
    ExpectNear(dtype_ == DType::kF32 ? logits_ : dlogits, expected, Rounded(dtype_, {kScale * 2e-6, 3e-6}), "dlogits");
  }
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

// Losses, and the gradient over the logits.
std::vector<double> LossesOf(TestTensor* logits, const std::vector<int32_t>& targets, float* total) {
  TestTensor indices = TestTensor::Integers(targets), losses(DType::kF32, {logits->view().rows()});
  TestTensor sum(DType::kF32, {1});
  Team team(1, {});
  CrossEntropy(team, {.logits = logits->view(),
                      .targets = indices.view(),
                      .losses = losses.view(),
                      .total = sum.view(),
                      .dlogits = logits->view()});
  *total = static_cast<float>(sum.at(0));
  return losses.values();
}

TEST(CrossEntropyLimits, LargeLogitsNeitherOverflowNorLoseTheLoss) {
  TestTensor logits(DType::kF32, {3, 3}, {1e30, -1e30, 0, -300, -300, -300, -1e30, 0, 1e30});
  float total = 0;
  const std::vector<double> losses = LossesOf(&logits, {0, 1, 0}, &total);
  EXPECT_EQ(losses[0], 0);
  EXPECT_NEAR(losses[1], std::log(3), 1e-6);
  EXPECT_FLOAT_EQ(losses[2], 2e30f);
  EXPECT_FLOAT_EQ(total, 2e30f);
}

// The largest logit in the last of many pieces, so that each sum before it has to be scaled down; the first piece is of
// -infinity only.
TEST(CrossEntropyLimits, AMaximumThatRisesAllTheWay) {
  constexpr int64_t kColumns = 50257;
  TestTensor logits(DType::kF32, {1, kColumns});
  for (int64_t i = 0; i < kColumns; ++i) logits.Set(i, i < 3000 ? -INFINITY : -60 + 100.0 * i / kColumns);
  const double exact = reference::LogSumExp(logits.values(), 0, kColumns) - logits.at(7000);
  float total = 0;
  LossesOf(&logits, {7000}, &total);
  EXPECT_NEAR(total, exact, 1e-6 * exact);
}

TEST(CrossEntropyLimits, NaNReachesTheTotal) {
  for (const int place : {0, 5, 9, 16}) {
    TestTensor logits = TestTensor::Random(DType::kF32, {2, 17}, 1);
    logits.Set(17 + place, std::nan(""));
    float total = 0;
    LossesOf(&logits, {0, 1}, &total);
    EXPECT_TRUE(std::isnan(total)) << place;
    EXPECT_TRUE(std::isnan(logits.at(17 + 3)));
  }
}

// With a logit of 0 among others far below it, lse is 0 and the gradient of those is e^x itself: the accuracy that
// simd_math-inl.h states, where the sum of all of them is too small to count.
TEST(CrossEntropyLimits, ExponentialIsGoodToTwoUnitsInTheLastPlace) {
  constexpr int64_t kPoints = 100001;
  TestTensor logits(DType::kF32, {1, kPoints});
  for (int64_t i = 0; i < kPoints; ++i) logits.Set(i, -87.0 + 50.0 * i / kPoints);
  logits.Set(kPoints - 1, 0);
  const TestTensor before = logits;
  float total = 0;
  LossesOf(&logits, {kPoints - 1}, &total);
  double worst = 0;
  for (int64_t i = 0; i < kPoints - 1; ++i) {
    const double exact = std::exp(before.at(i));
    const double unit = std::ldexp(1.0, std::ilogb(exact) - 23);
    worst = std::max(worst, std::abs(logits.at(i) - exact) / unit);
  }
  EXPECT_LE(worst, 2.0);
  RecordProperty("worst_units", std::to_string(worst));
}

TEST(CrossEntropyDeathTest, RefusesATargetBeyondTheVocabulary) {
  TestTensor logits = TestTensor::Random(DType::kF32, {1, 7}, 1);
  float total = 0;
  EXPECT_DEATH(LossesOf(&logits, {7}, &total), "target of row 0");
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
               "token 5 with a table of 5 rows");
}

// Two parts of a table of 11 rows: each token is in one of them, so that their sum is that of the whole.
TEST_P(EmbeddingTest, PartsOfTheTableAddUpToTheWhole) {
  TestTensor table = TestTensor::Random(DType::kF32, {kVocabulary, shape_[1]}, 1);
  TestTensor position_table = TestTensor::Random(DType::kF32, {kPositions, shape_[1]}, 2);
  TestTensor tokens = TestTensor::Integers(tokens_), positions = TestTensor::Integers(positions_);
  TestTensor dy = TestTensor::Random(dtype_, shape_, 3);
  TestTensor y(dtype_, shape_), dtable(DType::kF32, {kVocabulary, shape_[1]});
  Team team(2, {});
  EmbeddingForwardArgs forward{.tokens = tokens.view(),
                               .positions = positions.view(),
                               .table = table.view(),
                               .position_table = position_table.view(),
                               .y = y.view()};
  EmbeddingForward(team, forward);
  EmbeddingGradientArgs backward{
      .indices = tokens.view(), .dy = dy.view(), .dtable = dtable.view(), .accumulate = Accumulate::kOverwrite};
  EmbeddingGradient(team, backward);
  Doubles sum(y.elements());
  for (const auto& [first, rows] : {std::pair<int64_t, int64_t>(0, 6), {6, 5}}) {
    TestTensor part(dtype_, shape_), dpart(DType::kF32, {rows, shape_[1]});
    forward.rows = backward.rows = {.first = first, .vocabulary = kVocabulary};
    forward.table = {table.view().data + 4 * first * shape_[1], DType::kF32, {rows, shape_[1]}};
    forward.y = part.view();
    EmbeddingForward(team, forward);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += part.at(i);
    backward.dtable = dpart.view();
    EmbeddingGradient(team, backward);
    for (int64_t i = 0; i < dpart.elements(); ++i) EXPECT_EQ(dpart.at(i), dtable.at(first * shape_[1] + i));
  }
  EXPECT_EQ(sum, y.values());
}

}  // namespace
}  // namespace sluice::cpu
