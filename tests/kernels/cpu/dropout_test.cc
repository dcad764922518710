#include "kernels/cpu/dropout.h"

#include "base/philox.h"
#include "kernels/cpu/random_init.h"
#include "tests/kernels/cpu/every_team.h"
#include "tests/kernels/test_tensor.h"

namespace sluice::cpu {
namespace {

constexpr RandomKey kKey{.seed = 0x123456789abcdef0u, .name = 0xfedcba9876543210u, .step = 7};

uint32_t Word(uint32_t sample, int64_t element) {
  return RandomWords(kKey.seed, kKey.name, kKey.step, sample, static_cast<uint64_t>(element) / 4)[element % 4];
}

struct DropoutCase {
  int64_t samples, tokens, columns;
  float rate;
};

class DropoutTest : public testing::TestWithParam<std::tuple<DropoutCase, DType>> {
 protected:
  DropoutTest() {
    for (int64_t s = 0; s < case_.samples; ++s) samples_.push_back(static_cast<int32_t>(1000003 * s + 5));
  }
  Doubles Reference(const Doubles& x) {
    const int64_t elements = case_.tokens * case_.columns;
    Doubles y(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const bool kept = UnitFloat(Word(samples_[i / elements], i % elements)) >= case_.rate;
      y[i] = kept ? x[i] / (1.0 - case_.rate) : 0.0;
    }
    return y;
  }
  DropoutCase case_ = std::get<0>(GetParam());
  DType dtype_ = std::get<1>(GetParam());
  Shape shape_{case_.samples * case_.tokens, case_.columns};
  std::vector<int32_t> samples_;
};

// With and without the residual, which may be y, as x may be.
TEST_P(DropoutTest, EqualsReference) {
  const TestTensor x = TestTensor::Random(dtype_, shape_, 1), add = TestTensor::Random(dtype_, shape_, 2);
  TestTensor samples = TestTensor::Integers(samples_);
  Doubles expected = Reference(x.values());
  auto out = OnEveryTeam([&](Team& team) {
    TestTensor y = x;
    Dropout(team, {.key = kKey, .rate = case_.rate, .samples = samples.view(), .x = y.view(), .y = y.view()});
    return std::vector<TestTensor>{y};
  });
  // Two roundings.
  ExpectNear(out[0], expected, Rounded(dtype_, {0, 2.5e-7}), "in place of x");

  for (int64_t i = 0; i < x.elements(); ++i) expected[i] += add.at(i);
  out = OnEveryTeam([&](Team& team) {
    TestTensor input = x, y = add;
    Dropout(team, {.key = kKey,
                   .rate = case_.rate,
                   .samples = samples.view(),
                   .x = input.view(),
                   .add = y.view(),
                   .y = y.view()});
    return std::vector<TestTensor>{y};
  });
  // Three roundings of values up to 50 at rate 0.9.
  ExpectNear(out[0], expected, Rounded(dtype_, {5e-6, 2.5e-7}), "in place of add");
}

INSTANTIATE_TEST_SUITE_P(Shapes, DropoutTest,
                         testing::Combine(testing::Values(DropoutCase{1, 1, 1, 0.5f}, DropoutCase{2, 3, 7, 0.1f},
                                                          DropoutCase{3, 1, 33, 0.9f}, DropoutCase{2, 100, 257, 0.2f},
                                                          DropoutCase{5, 17, 64, 0.0f}),
                                          testing::Values(DType::kF32, DType::kBF16)));

// The mask belongs to the sample, wherever its rows lie and whichever samples lie beside it.
TEST(DropoutMask, FollowsTheGlobalSampleIndex) {
  TestTensor x(DType::kF32, {6, 33}, Doubles(6 * 33, 1.0)), y(DType::kF32, {6, 33}), alone(DType::kF32, {2, 33});
  TestTensor samples = TestTensor::Integers({11, 42, 3}), one = TestTensor::Integers({42});
  TestTensor two_rows(DType::kF32, {2, 33}, Doubles(2 * 33, 1.0));
  Team team(2, {});
  Dropout(team, {.key = kKey, .rate = 0.3f, .samples = samples.view(), .x = x.view(), .y = y.view()});
  Dropout(team, {.key = kKey, .rate = 0.3f, .samples = one.view(), .x = two_rows.view(), .y = alone.view()});
  for (int i = 0; i < 66; ++i) EXPECT_EQ(y.at(66 + i), alone.at(i));
}

// Tokens 2 ... 8 of three samples of 3: the end of one, a whole one, the beginning of another; 33 columns, so that
// quads of random numbers are cut.
TEST(DropoutMask, OfSomeOfTheTokensIsThatOfAll) {
  TestTensor samples = TestTensor::Integers({11, 42, 3});
  Team team(2, {});
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    TestTensor x = TestTensor::Random(dtype, {9, 33}, 1), add = TestTensor::Random(dtype, {9, 33}, 2);
    TestTensor all(dtype, {9, 33});
    DropoutArgs args{.key = kKey, .rate = 0.3f, .samples = samples.view(), .x = x.view(), .add = add.view()};
    args.y = all.view();
    Dropout(team, args);
    for (const auto& [first, count] : {std::pair(2, 6), {0, 1}, {8, 1}, {4, 2}, {0, 9}, {5, 0}}) {
      TestTensor some(dtype, {9, 33}, Doubles(9 * 33, 0.0));
      const auto part = [first = first, count = count](TestTensor& whole) {
        TensorView view = whole.view();
        return TensorView{view.data + first * 33 * SizeOf(view.dtype), view.dtype, {count, 33}};
      };
      args.sequence = 3;
      args.first_token = first;
      args.x = part(x), args.add = part(add), args.y = part(some);
      Dropout(team, args);
      for (int64_t i = 0; i < 9 * 33; ++i) {
        const bool inside = i / 33 >= first && i / 33 < first + count;
        EXPECT_EQ(some.at(i), inside ? all.at(i) : 0) << first << " " << count << " " << i;
      }
    }
  }
}

TEST(DropoutMask, DropsTheRate) {
  constexpr int64_t kElements = 1000000;
  TestTensor x(DType::kF32, {1000, 1000}, Doubles(kElements, 1.0)), y(DType::kF32, {1000, 1000});
  TestTensor samples = TestTensor::Integers({0});
  Team team(2, {});
  Dropout(team, {.key = kKey, .rate = 0.1f, .samples = samples.view(), .x = x.view(), .y = y.view()});
  int64_t dropped = 0;
  for (int64_t i = 0; i < kElements; ++i) dropped += y.at(i) == 0;
  EXPECT_NEAR(dropped, 0.1 * kElements, 5 * 300) << "five standard deviations";
}

TEST(InitNormalTest, EqualsBoxMullerOfTheCounters) {
  for (const int64_t elements : {1, 3, 7, 33, 100, 16384, 50001}) {
    const auto out = OnEveryTeam([&](Team& team) {
      TestTensor target(DType::kF32, {elements});
      InitNormal(team, {.key = kKey, .deviation = 0.02f, .target = target.view()});
      return std::vector<TestTensor>{target};
    });
    Doubles expected(elements);
    for (int64_t e = 0; e < elements; ++e) {
      const PhiloxBlock words = RandomWords(kKey.seed, kKey.name, kKey.step, 0, static_cast<uint64_t>(e) / 4);
      const int pair = e % 4 / 2 * 2;
      const double radius = std::sqrt(-2 * std::log(1.0 - UnitFloat(words[pair])));
      const double angle = 2 * M_PI * UnitFloat(words[pair + 1]);
      expected[e] = 0.02f * radius * (e % 2 == 0 ? std::cos(angle) : std::sin(angle));
    }
    // Computed in double and rounded once; near the zeros of sine and cosine the double is off by 1e-16.
    ExpectNear(out[0], expected, {1e-15, 6.1e-8}, "target");
  }
}

TEST(InitNormalTest, OfABlockIsThatOfTheWholeTensor) {
  constexpr int64_t kRows = 13, kColumns = 37;
  Team team(2, {});
  TestTensor whole(DType::kF32, {kRows, kColumns});
  InitNormal(team, {.key = kKey, .deviation = 1, .target = whole.view()});
  struct Block {
    int64_t row, column, rows, columns;
  };
  for (const auto& [row, column, rows, columns] :
       {Block{0, 0, 4, 37}, {5, 0, 8, 37}, {0, 0, 13, 19}, {0, 19, 13, 18}, {3, 36, 2, 1}, {12, 5, 1, 7}}) {
    TestTensor block(DType::kF32, {rows, columns});
    InitNormal(
        team,
        {.key = kKey, .deviation = 1, .target = block.view(), .first = row * kColumns + column, .stride = kColumns});
    for (int64_t i = 0; i < rows * columns; ++i) {
      EXPECT_EQ(block.at(i), whole.at((row + i / columns) * kColumns + column + i % columns)) << row << " " << column;
    }
  }
}

TEST(InitNormalTest, HasTheMomentsOfTheNormalDistribution) {
  constexpr int64_t kElements = 1000000;
  TestTensor target(DType::kF32, {kElements});
  Team team(2, {});
  InitNormal(team, {.key = kKey, .deviation = 2.0f, .target = target.view()});
  double sum = 0, square = 0, fourth = 0;
  for (const double x : target.values()) {
    sum += x;
    square += x * x;
    fourth += x * x * x * x;
  }
  // Five standard errors each: 2/sqrt(n), 4 sqrt(2/n), 16 sqrt(96/n).
  EXPECT_NEAR(sum / kElements, 0, 0.01);
  EXPECT_NEAR(square / kElements, 4, 0.03);
  EXPECT_NEAR(fourth / kElements, 48, 0.8);
}

}  // namespace
}  // namespace sluice::cpu
