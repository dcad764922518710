// Linear operations of the CPU against double precision; and the same bits from teams of any size.
#include "kernels/cpu/linear.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "kernels/cpu/linear_backends.h"
#include "kernels/cpu/onednn.h"
#include "kernels/cpu/team.h"
#include "kernels/cpu/tile_product.h"
#include "tests/kernels/cpu/host_tensor.h"
#include "tests/kernels/cpu/reference.h"

namespace sluice::cpu {
namespace {

struct Case {
  int64_t m, n, k;
  DType compute;
};

std::string NameOf(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  return "M" + std::to_string(c.m) + "N" + std::to_string(c.n) + "K" + std::to_string(c.k) +
         std::string(Name(c.compute));
}

// The largest difference, each element's relative to 1 + |expected|.
double Error(const std::vector<double>& actual, const reference::Values& expected) {
  EXPECT_EQ(actual.size(), expected.size());
  double worst = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double error = std::abs(actual[i] - expected[i]) / (1 + std::abs(expected[i]));
    if (!(error <= worst)) worst = error;  // a NaN counts
  }
  return worst;
}

class LinearTest : public testing::TestWithParam<Case> {
 protected:
  // Products of numbers in [-1, 1) with mean square 1/9: a sum of n of them is about sqrt(n)/3.
  double Tolerance(int64_t terms, DType result) const {
    return SumTolerance(terms, std::max(1.0, std::sqrt(static_cast<double>(terms)) / 3), result);
  }
  // Weights are f32 and are rounded by packing.
  reference::Values RoundedWeight() const {
    reference::Values values = weight_.Doubles();
    if (c_.compute == DType::kBF16) {
      for (double& value : values) value = ToFloat(ToBFloat16(static_cast<float>(value)));
    }
    return values;
  }
  HostTensor Packed(Team& team) const {
    HostTensor packed(Shape{(PackedLinearBytes(shape_) + 3) / 4}, DType::kI32);
    PackLinear(team, shape_, weight_, packed);
    return packed;
  }

  const Case c_ = GetParam();
  const LinearShape shape_{c_.n, c_.k, c_.compute};
  const HostTensor weight_ = HostTensor::Random({c_.n, c_.k}, DType::kF32, 1);
  const HostTensor x_ = HostTensor::Random({c_.m, c_.k}, c_.compute, 2);
  const HostTensor dy_ = HostTensor::Random({c_.m, c_.n}, c_.compute, 3);
  const HostTensor bias_ = HostTensor::Random({c_.n}, DType::kF32, 4);
  const HostTensor add_ = HostTensor::Random({c_.m, c_.n}, c_.compute, 5);
};

TEST_P(LinearTest, ForwardAgreesWithReference) {
  Team team(2, {});
  const HostTensor packed = Packed(team);
  const auto product = reference::Linear(c_.m, c_.n, c_.k, x_.Doubles(), RoundedWeight());
  const reference::Values bias = bias_.Doubles(), add = add_.Doubles();
  for (const bool with_bias : {false, true}) {
    for (const bool with_add : {false, true}) {
      reference::Values expected = product;
      for (size_t i = 0; i < expected.size(); ++i) expected[i] += with_bias * bias[i % c_.n] + with_add * add[i];
      for (const DType y_type : {c_.compute, DType::kF32}) {
        SCOPED_TRACE(testing::Message() << "bias " << with_bias << " add " << with_add << " y " << Name(y_type));
        HostTensor y({c_.m, c_.n}, y_type);
        LinearForward(team, {.shape = shape_,
                             .x = x_,
                             .packed = packed,
                             .bias = with_bias ? bias_.view() : TensorView{},
                             .add = with_add ? add_.view() : TensorView{},
                             .y = y});
        EXPECT_LE(Error(y.Doubles(), expected), Tolerance(c_.k, y_type));
      }
    }
  }
}

TEST_P(LinearTest, AddMayBeTheResult) {
  Team team(2, {});
  const HostTensor packed = Packed(team);
  HostTensor apart({c_.m, c_.n}, c_.compute), in_place = add_.Clone();
  LinearForward(team, {.shape = shape_, .x = x_, .packed = packed, .bias = bias_, .add = add_, .y = apart});
  LinearForward(team, {.shape = shape_, .x = x_, .packed = packed, .bias = bias_, .add = in_place, .y = in_place});
  EXPECT_EQ(apart.Bits(), in_place.Bits());
}

TEST_P(LinearTest, InputGradientAgreesWithReference) {
  Team team(2, {});
  const HostTensor packed = Packed(team);
  HostTensor dx({c_.m, c_.k}, c_.compute);
  LinearInputGradient(team, {.shape = shape_, .dy = dy_, .packed = packed, .dx = dx});
  const auto expected = reference::LinearInputGradient(c_.m, c_.n, c_.k, dy_.Doubles(), RoundedWeight());
  EXPECT_LE(Error(dx.Doubles(), expected), Tolerance(c_.n, c_.compute));
}

TEST_P(LinearTest, WeightGradientAgreesWithReference) {
  Team team(2, {});
  const auto expected = reference::LinearWeightGradient(c_.m, c_.n, c_.k, x_.Doubles(), dy_.Doubles());
  HostTensor dweight({c_.n, c_.k}, DType::kF32), dbias({c_.n}, DType::kF32);
  LinearWeightGradientArgs args{.shape = shape_, .x = x_, .dy = dy_, .dweight = dweight, .dbias = dbias};
  args.accumulate = Accumulate::kOverwrite;  // over the poison
  LinearWeightGradient(team, args);
  EXPECT_LE(Error(dweight.Doubles(), expected.dweight), Tolerance(c_.m, DType::kF32));
  EXPECT_LE(Error(dbias.Doubles(), expected.dbias), 3 * Tolerance(c_.m, DType::kF32));  // terms have no second factor

  args.accumulate = Accumulate::kAdd;
  LinearWeightGradient(team, args);
  reference::LinearGradients twice = expected;
  for (double& value : twice.dweight) value *= 2;
  for (double& value : twice.dbias) value *= 2;
  EXPECT_LE(Error(dweight.Doubles(), twice.dweight), 2 * Tolerance(c_.m, DType::kF32));
  EXPECT_LE(Error(dbias.Doubles(), twice.dbias), 6 * Tolerance(c_.m, DType::kF32));

  HostTensor without_bias({c_.n, c_.k}, DType::kF32);
  args.accumulate = Accumulate::kOverwrite;
  args.dweight = without_bias;
  args.dbias = {};
  LinearWeightGradient(team, args);
  EXPECT_LE(Error(without_bias.Doubles(), expected.dweight), Tolerance(c_.m, DType::kF32));
}

TEST_P(LinearTest, BitsDoNotDependOnTheTeam) {
  std::vector<std::vector<std::byte>> first;
  for (const int threads : {1, 2, 3, 1}) {
    Team team(threads, {});
    const HostTensor packed = Packed(team);
    HostTensor y({c_.m, c_.n}, c_.compute), dx({c_.m, c_.k}, c_.compute);
    HostTensor dweight = HostTensor::Random({c_.n, c_.k}, DType::kF32, 6), dbias = bias_.Clone();
    LinearForward(team, {.shape = shape_, .x = x_, .packed = packed, .bias = bias_, .add = add_, .y = y});
    LinearInputGradient(team, {.shape = shape_, .dy = dy_, .packed = packed, .dx = dx});
    LinearWeightGradient(team, {.shape = shape_, .x = x_, .dy = dy_, .dweight = dweight, .dbias = dbias});
    const std::vector<std::vector<std::byte>> bits = {packed.Bits(), y.Bits(), dx.Bits(), dweight.Bits(), dbias.Bits()};
    if (first.empty()) first = bits;
    EXPECT_TRUE(bits == first) << threads << " threads";
  }
}

// Odd sizes, remainders of every block size, and one that has several blocks each way.
INSTANTIATE_TEST_SUITE_P(Shapes, LinearTest,
                         testing::Values(Case{1, 1, 1, DType::kF32}, Case{7, 33, 20, DType::kF32},
                                         Case{129, 70, 130, DType::kF32}, Case{140, 530, 270, DType::kF32},
                                         Case{64, 256, 64, DType::kF32}, Case{1, 1, 1, DType::kBF16},
                                         Case{7, 33, 20, DType::kBF16}, Case{129, 70, 130, DType::kBF16},
                                         Case{140, 530, 270, DType::kBF16}, Case{64, 256, 64, DType::kBF16},
                                         Case{300, 600, 96, DType::kBF16}, Case{40, 70, 1100, DType::kBF16},
                                         Case{35, 3200, 40, DType::kBF16}, Case{1100, 40, 33, DType::kBF16}),
                         NameOf);

// What linear.h chooses among, by element type and processor: here all that can run are held against our panels, which
// run everywhere (the library's f32 products too).
struct Backend {
  int64_t (*bytes)(const LinearShape&);
  void (*pack)(Team&, const LinearShape&, const float*, std::byte*);
  void (*multiply)(Team&, const PackedProductArgs&);
  void (*gradient)(Team&, const LinearWeightGradientArgs&);
};
constexpr Backend kPanels{panels::PackedLinearBytes, panels::PackLinear, panels::Multiply, panels::WeightGradient};
constexpr Backend kLibrary{library::PackedLinearBytes, library::PackLinear, library::Multiply, library::WeightGradient};
constexpr Backend kTiles{tiles::PackedLinearBytes, tiles::PackLinear, tiles::Multiply, tiles::WeightGradient};

class LinearBackends : public testing::TestWithParam<DType> {
 protected:
  static constexpr int64_t kM = 140, kN = 530, kK = 270;
  struct Results {
    HostTensor y, dx, dweight, dbias;
  };
  Results Run(int threads, const Backend& backend) const {
    Team team(threads, {});
    Results r{HostTensor({kM, kN}, type_), HostTensor({kM, kK}, type_), HostTensor({kN, kK}, DType::kF32),
              HostTensor({kN}, DType::kF32)};
    HostTensor packed(Shape{(backend.bytes(shape_) + 3) / 4}, DType::kI32);
    std::byte* const data = packed.view().data;
    backend.pack(team, shape_, weight_.view().as<float>(), data);
    backend.multiply(team, PackedProductArgs{.use = {shape_, Use::kForward},
                                             .x = x_,
                                             .packed = data,
                                             .bias = bias_.view().as<float>(),
                                             .add = add_,
                                             .y = r.y});
    backend.multiply(team,
                     PackedProductArgs{.use = {shape_, Use::kInputGradient}, .x = add_, .packed = data, .y = r.dx});
    LinearWeightGradientArgs gradient{.shape = shape_, .x = x_, .dy = add_, .dweight = r.dweight, .dbias = r.dbias};
    for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
      gradient.accumulate = accumulate;
      backend.gradient(team, gradient);
    }
    return r;
  }
  void ExpectAgreement(const Backend& backend) const {
    const Results ours = Run(2, kPanels), theirs = Run(1, backend);
    EXPECT_LE(Error(theirs.y.Doubles(), ours.y.Doubles()), SumTolerance(kK, 10, type_));
    EXPECT_LE(Error(theirs.dx.Doubles(), ours.dx.Doubles()), SumTolerance(kN, 10, type_));
    EXPECT_LE(Error(theirs.dweight.Doubles(), ours.dweight.Doubles()), SumTolerance(2 * kM, 10, DType::kF32));
    EXPECT_LE(Error(theirs.dbias.Doubles(), ours.dbias.Doubles()), SumTolerance(2 * kM, 10, DType::kF32));
    for (const int threads : {2, 3, 1}) {
      const Results again = Run(threads, backend);
      EXPECT_TRUE(again.y.Bits() == theirs.y.Bits() && again.dx.Bits() == theirs.dx.Bits() &&
                  again.dweight.Bits() == theirs.dweight.Bits() && again.dbias.Bits() == theirs.dbias.Bits())
          << threads << " threads";
    }
  }

  const DType type_ = GetParam();
  const LinearShape shape_{kN, kK, type_};
  const HostTensor weight_ = HostTensor::Random({kN, kK}, DType::kF32, 1), x_ = HostTensor::Random({kM, kK}, type_, 2),
                   bias_ = HostTensor::Random({kN}, DType::kF32, 3), add_ = HostTensor::Random({kM, kN}, type_, 4);
};

TEST_P(LinearBackends, TheLibraryAgreesWithThePanels) {
  if (type_ == DType::kBF16 && !HasFastBFloat16()) GTEST_SKIP() << "the library has nothing for bf16 on this processor";
  ExpectAgreement(kLibrary);
}

class LinearTiles : public LinearBackends {};
TEST_P(LinearTiles, AgreeWithThePanels) {
  if (!tiles::Available()) GTEST_SKIP() << "this processor has no matrix registers";
  ExpectAgreement(kTiles);
}

INSTANTIATE_TEST_SUITE_P(Types, LinearBackends, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) { return std::string(Name(info.param)); });
INSTANTIATE_TEST_SUITE_P(Types, LinearTiles, testing::Values(DType::kBF16),
                         [](const auto& info) { return std::string(Name(info.param)); });

TEST(LinearRows, APackedWeightServesAnyNumberOfRows) {
  Team team(1, {});
  const LinearShape shape{96, 80, DType::kF32};
  const HostTensor weight = HostTensor::Random({96, 80}, DType::kF32, 1);
  HostTensor packed(Shape{PackedLinearBytes(shape) / 4}, DType::kI32);
  PackLinear(team, shape, weight, packed);
  for (const int64_t m : {1, 2, 31, 128, 257}) {
    const HostTensor x = HostTensor::Random({m, 80}, DType::kF32, 2);
    HostTensor y({m, 96}, DType::kF32);
    LinearForward(team, {.shape = shape, .x = x, .packed = packed, .y = y});
    const auto expected = reference::Linear(m, 96, 80, x.Doubles(), weight.Doubles());
    EXPECT_LE(Error(y.Doubles(), expected), SumTolerance(80, 3, DType::kF32)) << m;
  }
}

TEST(Library, NeverRunsItsReferenceLoops) {
  for (const int64_t columns : {768, 3072}) {
    for (const bool has_bias : {false, true}) {
      const RightProduct product{.right = {.depth = 768, .columns = columns, .type = DType::kF32},
                                 .rows = 128,
                                 .x_stride = 768,
                                 .y_stride = columns,
                                 .has_bias = has_bias};
      EXPECT_EQ(ImplementationOf(product).find("ref"), std::string::npos) << ImplementationOf(product);
    }
  }
}

}  // namespace
}  // namespace sluice::cpu
