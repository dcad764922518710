#include "kernels/cuda/cross_entropy.h"

#include "kernels/cpu/embedding.h"
#include "kernels/cpu/team.h"
#include "kernels/cuda/embedding.h"
#include "tests/kernels/cuda/on_gpu.h"
#include "tests/kernels/reference_loss.h"

namespace sluice::cuda {
namespace {

// Every fifth target is ignored.
std::vector<int32_t> RandomTargets(int64_t rows, int64_t columns) {
  std::mt19937 generator(9);
  std::vector<int32_t> targets;
  for (int64_t row = 0; row < rows; ++row) {
    targets.push_back(static_cast<int32_t>(row % 5 == 3 ? -1 : generator() % columns));
  }
  return targets;
}

class CrossEntropyTest : public testing::TestWithParam<MatrixCase> {
 protected:
  struct Out {
    TestTensor losses, total, dlogits;
  };
  // Gradients of f32 replace the logits.
  Out Run(const TestTensor& logits, const CrossEntropyArgs& with, bool with_gradient,
          Placement placement = Placement::kAligned, TestTensor* statistics = nullptr) {
    TestTensor mine = logits;
    Out out{TestTensor(DType::kF32, {shape_[0]}), TestTensor(DType::kF32, {1}, {2.0}),
            TestTensor(dtype_, mine.view().shape)};
    OnGpu gpu(placement);
    CrossEntropyArgs args = with;
    args.logits = gpu(mine), args.targets = gpu(targets_), args.losses = gpu(out.losses), args.total = gpu(out.total);
    if (with_gradient) args.dlogits = dtype_ == DType::kF32 ? args.logits : gpu(out.dlogits);
    if (statistics != nullptr) args.statistics = gpu(*statistics);
    gpu.Finish(CrossEntropy(gpu.stream(), args));
    if (dtype_ == DType::kF32) out.dlogits = mine;
    return out;
  }

  Shape shape_{GetParam().rows, GetParam().columns};
  DType dtype_ = GetParam().dtype;  // of the gradient
  TestTensor logits_ = TestTensor::Random(DType::kF32, shape_, 1, 4.0);
  std::vector<int32_t> target_list_ = RandomTargets(shape_[0], shape_[1]);
  TestTensor targets_ = TestTensor::Integers(target_list_);
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
    const Out out = Run(logits_, {.accumulate = accumulate}, false);
    ExpectNear(out.losses, losses, {1e-5, 1e-6}, "losses");
    ExpectNear(out.total, {total + (accumulate == Accumulate::kAdd ? 2 : 0)}, {2e-5, 1e-6}, "total");
  }
}

TEST_P(CrossEntropyTest, GradientEqualsReferenceAndLeavesTheLossesTheirBits) {
  constexpr float kScale = 0.25f;
  const Out only_losses = Run(logits_, {}, false), out = Run(logits_, {.scale = kScale}, true);
  const Doubles expected = reference::CrossEntropyGradient(logits_.values(), target_list_, shape_[1], kScale);
  // The exponent is a difference of numbers up to 20, each rounded to 1e-6, times scale; p - 1 is absolutely as good.
  ExpectNear(out.dlogits, expected, Rounded(dtype_, {kScale * 2e-6, 3e-6}), "dlogits");
  EXPECT_TRUE(out.losses.SameBits(only_losses.losses) && out.total.SameBits(only_losses.total));
  const Out shifted = Run(logits_, {.scale = kScale}, true, Placement::kShifted);
  EXPECT_TRUE(out.losses.SameBits(shifted.losses) && out.dlogits.SameBits(shifted.dlogits));
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
  const Doubles gradient = reference::CrossEntropyGradient(logits_.values(), target_list_, columns, kScale);
  const double total = reference::CrossEntropy(logits_.values(), target_list_, columns);
  TestTensor statistics(DType::kF32, {parts, rows, 3});
  const auto range = [&](int64_t p) { return RowRange{.first = p * columns / parts, .vocabulary = columns}; };
  const auto part_of = [&](int64_t p) {
    return ColumnsOf(logits_, rows, range(p).first, (p + 1) * columns / parts - range(p).first);
  };
  for (int64_t p = 0; p < parts; ++p) {
    TestTensor part = part_of(p), mine(DType::kF32, {rows, 3});
    OnGpu gpu;
    gpu.Finish(LogitStatistics(
        gpu.stream(), {.logits = gpu(part), .targets = gpu(targets_), .columns = range(p), .statistics = gpu(mine)}));
    for (int64_t i = 0; i < rows * 3; ++i) statistics.Set(p * rows * 3 + i, mine.at(i));
  }
  for (int64_t p = 0; p < parts; ++p) {
    const TestTensor part = part_of(p);
    const Out out = Run(part, {.columns = range(p), .scale = kScale}, true, Placement::kAligned, &statistics);
    // As of whole logits, and a rounding more of the sums of exponentials.
    ExpectNear(out.total, {total}, {2e-5, 1e-6}, "total");
    Doubles expected;
    const int64_t count = part.elements() / rows;
    for (int64_t i = 0; i < rows * count; ++i) {
      expected.push_back(gradient[i / count * columns + range(p).first + i % count]);
    }
    ExpectNear(out.dlogits, expected, Rounded(dtype_, {kScale * 2e-6, 3e-6}), "dlogits");
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CrossEntropyTest, testing::ValuesIn(GpuMatrixCases()));

// Losses, and the gradient over the logits.
Doubles LossesOf(TestTensor* logits, const std::vector<int32_t>& targets, float* total) {
  TestTensor indices = TestTensor::Integers(targets), losses(DType::kF32, {logits->view().rows()});
  TestTensor sum(DType::kF32, {1});
  OnGpu gpu;
  gpu.Finish(CrossEntropy(gpu.stream(), {.logits = gpu(*logits),
                                         .targets = gpu(indices),
                                         .losses = gpu(losses),
                                         .total = gpu(sum),
                                         .dlogits = gpu(*logits)}));
  *total = static_cast<float>(sum.at(0));
  return losses.values();
}

TEST(CrossEntropyLimits, LargeLogitsNeitherOverflowNorLoseTheLoss) {
  TestTensor logits(DType::kF32, {3, 3}, {1e30, -1e30, 0, -300, -300, -300, -1e30, 0, 1e30});
  float total = 0;
  const Doubles losses = LossesOf(&logits, {0, 1, 0}, &total);
  EXPECT_EQ(losses[0], 0);
  EXPECT_NEAR(losses[1], std::log(3), 1e-6);
  EXPECT_FLOAT_EQ(losses[2], 2e30f);
  EXPECT_FLOAT_EQ(total, 2e30f);
}

// The largest logit last, so that each thread's sum has to be scaled down again and again; with some of -infinity.
TEST(CrossEntropyLimits, AMaximumThatRisesAllTheWay) {
  constexpr int64_t kColumns = 20001;
  TestTensor logits(DType::kF32, {1, kColumns});
  for (int64_t i = 0; i < kColumns; ++i) logits.Set(i, i < 3000 ? -INFINITY : -60 + 100.0 * i / kColumns);
  const double exact = reference::LogSumExp(logits.values(), 0, kColumns) - logits.at(7000);
  float total = 0;
  LossesOf(&logits, {7000}, &total);
  EXPECT_NEAR(total, exact, 1e-6 * exact);
}

// More than the block that adds them takes at once.
TEST(CrossEntropyLimits, TheTotalOfManyRowsIsThatOfAllOfThem) {
  constexpr int64_t kRows = 2050;
  TestTensor logits = TestTensor::Random(DType::kF32, {kRows, 2}, 1);
  float total = 0;
  double sum = 0;
  for (const double loss : LossesOf(&logits, std::vector<int32_t>(kRows, 1), &total)) sum += loss;
  EXPECT_FLOAT_EQ(total, static_cast<float>(sum));
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

// More rows than a block fetches at once for the total, which is the sum of the losses in order.
TEST(CrossEntropyTotal, OfManyRowsIsTheSumInOrder) {
  constexpr int64_t kRows = 1300, kColumns = 4;
  TestTensor logits = TestTensor::Random(DType::kF32, {kRows, kColumns}, 1, 4.0);
  float total = 0;
  double sum = 0;
  for (const double loss : LossesOf(&logits, RandomTargets(kRows, kColumns), &total)) sum += loss;
  EXPECT_EQ(total, static_cast<float>(sum));
}

class EmbeddingTest : public testing::TestWithParam<MatrixCase> {
 protected:
  static constexpr int32_t kVocabulary = 11, kPositions = 70;
  EmbeddingTest() {
    std::vector<int32_t> tokens, positions;
    for (int64_t row = 0; row < shape_[0]; ++row) {
      tokens.push_back(static_cast<int32_t>(row * row % (kVocabulary - 1)));  // the last one never occurs
      positions.push_back(static_cast<int32_t>(row % kPositions));
    }
    tokens_ = TestTensor::Integers(tokens), positions_ = TestTensor::Integers(positions);
  }
  Shape shape_{GetParam().rows, GetParam().columns};
  DType dtype_ = GetParam().dtype;
  TestTensor tokens_{DType::kI32, {0}}, positions_{DType::kI32, {0}};
  TestTensor table_ = TestTensor::Random(DType::kF32, {kVocabulary, shape_[1]}, 1);
  TestTensor position_table_ = TestTensor::Random(DType::kF32, {kPositions, shape_[1]}, 2);
  cpu::Team team_{1, {}};
};

// One addition and one rounding: the CPU's bits, of the whole table and of its rows from 6 on.
TEST_P(EmbeddingTest, ForwardHasTheBitsOfTheCpu) {
  for (const bool with_positions : {false, true}) {
    for (const int64_t first : {0, 6}) {
      const RowRange rows{.first = first, .vocabulary = kVocabulary};
      TestTensor part = TestTensor::Random(DType::kF32, {kVocabulary - first, shape_[1]}, 3);
      TestTensor y(dtype_, shape_), expected(dtype_, shape_);
      cpu::EmbeddingForward(team_, {.tokens = tokens_.view(),
                                    .positions = with_positions ? positions_.view() : TensorView{},
                                    .table = part.view(),
                                    .position_table = with_positions ? position_table_.view() : TensorView{},
                                    .rows = rows,
                                    .y = expected.view()});
      OnGpu gpu(with_positions ? Placement::kAligned : Placement::kShifted);
      gpu.Finish(EmbeddingForward(gpu.stream(), {.tokens = gpu(tokens_),
                                                 .positions = with_positions ? gpu(positions_) : TensorView{},
                                                 .table = gpu(part),
                                                 .position_table = with_positions ? gpu(position_table_) : TensorView{},
                                                 .rows = rows,
                                                 .y = gpu(y)}));
      EXPECT_TRUE(y.SameBits(expected)) << with_positions << first;
    }
  }
}

TEST_P(EmbeddingTest, GradientHasTheBitsOfTheCpu) {
  TestTensor dy = TestTensor::Random(dtype_, shape_, 1);
  for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
    for (const int64_t first : {0, 6}) {
      const RowRange rows{.first = first, .vocabulary = kVocabulary};
      const Shape shape{kVocabulary - first, shape_[1]};
      const TestTensor before =
          accumulate == Accumulate::kAdd ? TestTensor::Random(DType::kF32, shape, 2) : TestTensor(DType::kF32, shape);
      TestTensor dtable = before, expected = before;
      cpu::EmbeddingGradient(team_, {.indices = tokens_.view(),
                                     .dy = dy.view(),
                                     .dtable = expected.view(),
                                     .rows = rows,
                                     .accumulate = accumulate});
      OnGpu gpu(first == 0 ? Placement::kAligned : Placement::kShifted);
      gpu.Finish(EmbeddingGradient(
          gpu.stream(),
          {.indices = gpu(tokens_), .dy = gpu(dy), .dtable = gpu(dtable), .rows = rows, .accumulate = accumulate}));
      EXPECT_TRUE(dtable.SameBits(expected)) << first;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, EmbeddingTest, testing::ValuesIn(GpuMatrixCases()));

// More indices than a block looks at together, one of them most of the time.
TEST(EmbeddingGradientTest, OfManyIndicesHasTheBitsOfTheCpu) {
  constexpr int64_t kRows = 1300, kColumns = 12, kVocabulary = 40;
  std::vector<int32_t> list;
  for (int64_t i = 0; i < kRows; ++i) list.push_back(static_cast<int32_t>(i % 5 == 0 ? i * 7 % kVocabulary : 3));
  TestTensor indices = TestTensor::Integers(list), dy = TestTensor::Random(DType::kBF16, {kRows, kColumns}, 1);
  TestTensor dtable(DType::kF32, {kVocabulary, kColumns}), expected = dtable;
  cpu::Team team(1, {});
  cpu::EmbeddingGradient(
      team,
      {.indices = indices.view(), .dy = dy.view(), .dtable = expected.view(), .accumulate = Accumulate::kOverwrite});
  OnGpu gpu;
  gpu.Finish(EmbeddingGradient(
      gpu.stream(),
      {.indices = gpu(indices), .dy = gpu(dy), .dtable = gpu(dtable), .accumulate = Accumulate::kOverwrite}));
  EXPECT_TRUE(dtable.SameBits(expected));
}

}  // namespace
}  // namespace sluice::cuda
