#include "kernels/cpu/hash.h"

#include <cstring>
#include <random>
#include <set>

#include "tests/kernels/cpu/every_team.h"
#include "tests/kernels/test_tensor.h"

namespace sluice::cpu {
namespace {

uint64_t HashOf(Team& team, const TensorView& view) {
  uint64_t hash = 0;
  Hash(team, view, {reinterpret_cast<std::byte*>(&hash), DType::kI32, {2}});
  return hash;
}

const int64_t kSizes[] = {1, 2, 15, 16, 17, 1000, 16384, 16385, 100003};

TEST(HashTest, TheSameForTheSameBitsWhateverTheTeam) {
  Team one(1, {}), three(3, {});
  for (const int64_t n : kSizes) {
    TestTensor a = TestTensor::Random(DType::kF32, {n}, 1), b = TestTensor::Random(DType::kF32, {n}, 1);
    EXPECT_EQ(HashOf(one, a.view()), HashOf(three, b.view())) << n;
  }
}

// Also a sign, and zeros of another number.
TEST(HashTest, AnyBitMakesADifference) {
  Team team(2, {});
  std::mt19937 random(1);
  for (const int64_t n : kSizes) {
    TestTensor tensor = TestTensor::Random(DType::kF32, {n}, 2);
    auto* words = tensor.view().as<uint32_t>();
    std::set<uint64_t> seen = {HashOf(team, tensor.view())};
    for (int flip = 1; flip <= 200; ++flip) {
      words[random() % n] ^= flip % 2 == 0 ? 0x80000000u : 1u << random() % 31;
      seen.insert(HashOf(team, tensor.view()));
    }
    EXPECT_GT(seen.size(), n < 20 ? 100u : 200u) << n;  // of few bits some flip back
  }
  std::set<uint64_t> zeros;
  for (const int64_t n : kSizes) {
    TestTensor tensor(DType::kF32, {n}, Doubles(n));
    zeros.insert(HashOf(team, tensor.view()));
  }
  EXPECT_EQ(zeros.size(), std::size(kSizes));
}

TEST(HashTest, PlacesCount) {
  Team team(2, {});
  TestTensor tensor = TestTensor::Random(DType::kF32, {40000}, 3);
  const uint64_t before = HashOf(team, tensor.view());
  auto* words = tensor.view().as<uint32_t>();
  for (const auto& [a, b] : {std::pair(0, 1), std::pair(5, 21), std::pair(100, 39999)}) {
    std::swap(words[a], words[b]);
    EXPECT_NE(HashOf(team, tensor.view()), before);
    std::swap(words[a], words[b]);
  }
  EXPECT_EQ(HashOf(team, tensor.view()), before);
}

}  // namespace
}  // namespace sluice::cpu
