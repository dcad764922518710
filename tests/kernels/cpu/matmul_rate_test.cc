// The rates that floors are made of: there is one for each kind and layout, and the library computes the same in all.
#include "kernels/cpu/matmul_rate.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/onednn.h"

namespace sluice::cpu {
namespace {

TEST(LibraryRate, IsThereForEachKindAndLayout) {
  const auto world = NewRealWorld();
  for (const MatmulKind kind : {MatmulKind::kForward, MatmulKind::kInputGradient, MatmulKind::kWeightGradient}) {
    double best = 0;
    for (const LibraryLayout layout : {LibraryLayout::kPacked, LibraryLayout::kPlain}) {
      best = std::max(best, LibraryRate(world.get(), {kind, 32, 64, 48, DType::kF32}, layout, 2));
    }
    EXPECT_GT(best, 1e6);  // a million FLOPs a second: anything that isn't broken
  }
}

TEST(MemoryRate, IsThereForEachMotion) {
  const auto world = NewRealWorld();
  const MemoryRate rate = MeasureMemoryRate(world.get(), int64_t{4} << 20, 2);
  EXPECT_GT(rate.read, 1e6);
  EXPECT_GT(rate.write, 1e6);
  EXPECT_GT(rate.update, 1e6);
}

// Small whole numbers, so that sums are exact in any order.
std::vector<float> Numbers(size_t count) {
  std::vector<float> numbers(count);
  for (size_t i = 0; i < count; ++i) numbers[i] = static_cast<float>(i % 7) - 3;
  return numbers;
}

TEST(Library, MultipliesTheSameInEveryLayout) {
  constexpr int64_t kM = 16, kK = 32, kN = 48;
  const std::vector<float> x = Numbers(kM * kK), right = Numbers(kK * kN);
  std::vector<std::vector<float>> results;
  for (const RightLayout layout : {RightLayout::kLibrary, RightLayout::kRowMajor, RightLayout::kColumnMajor}) {
    const RightMatrix matrix{.depth = kK, .columns = kN, .layout = layout};
    std::vector<float> packed(PackedBytes(matrix) / 4 + 64), y(kM * kN);
    Pack(matrix, right.data(), {.depth = kN, .column = 1}, reinterpret_cast<std::byte*>(packed.data()));
    Multiply({.right = matrix, .rows = kM, .x_stride = kK, .y_stride = kN}, x.data(), packed.data(), nullptr, y.data());
    results.push_back(y);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(Library, MultipliesTransposedTheSameInEveryLayout) {
  constexpr int64_t kRows = 48, kColumns = 32, kDepth = 16;
  const std::vector<float> a = Numbers(kDepth * kRows), b = Numbers(kDepth * kColumns);
  TransposedProduct product{.rows = kRows,
                            .columns = kColumns,
                            .depth = kDepth,
                            .a_stride = kRows,
                            .b_stride = kColumns,
                            .y_stride = kColumns};
  std::vector<float> plain(kRows * kColumns), from_packed(kRows * kColumns);
  Multiply(product, a.data(), b.data(), plain.data());
  const RightMatrix matrix{.depth = kDepth, .columns = kColumns};
  std::vector<float> packed(PackedBytes(matrix) / 4 + 64);
  Pack(matrix, b.data(), DType::kF32, {.depth = kColumns, .column = 1}, reinterpret_cast<std::byte*>(packed.data()));
  product.b_layout = RightLayout::kLibrary;
  Multiply(product, a.data(), packed.data(), from_packed.data());
  EXPECT_EQ(plain, from_packed);
}

}  // namespace
}  // namespace sluice::cpu
