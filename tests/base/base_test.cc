// base's small values: ids, random counters, status shorthand, CHECK.
#include <type_traits>
#include <unordered_set>

#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/ids.h"
#include "base/philox.h"
#include "base/ref.h"
#include "base/status.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

// Known answers of the authors' Random123 library (tests/kat_vectors: philox4x32, 10 rounds).
TEST(PhiloxTest, EqualsThePublishedVectors) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, 0), (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffffffffffff),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, MixAndHashEqualThePublishedVectors) {
  // First outputs of splitmix64 from seed 0 and seed 1234567; FNV-1a of the empty string and of "foobar".
  EXPECT_EQ(MixBits(0), 0xe220a8397b1dcdafu);
  EXPECT_EQ(MixBits(1234567), 6457827717110365317u);
  EXPECT_EQ(HashName(""), 0xcbf29ce484222325u);
  EXPECT_EQ(HashName("foobar"), 0x85944171f73967e8u);
}

TEST(PhiloxTest, EveryPartOfTheKeyChangesTheWords) {
  const PhiloxBlock base = RandomWords(1, 2, 3, 4, 5);
  EXPECT_EQ(base, RandomWords(1, 2, 3, 4, 5));
  EXPECT_NE(base, RandomWords(0, 2, 3, 4, 5));
  EXPECT_NE(base, RandomWords(1, 0, 3, 4, 5));
  EXPECT_NE(base, RandomWords(1, 2, 0, 4, 5));
  EXPECT_NE(base, RandomWords(1, 2, 3, 0, 5));
  EXPECT_NE(base, RandomWords(1, 2, 3, 4, 0));
  EXPECT_NE(base, RandomWords(1, 2, 3, 4, 5 + (uint64_t{1} << 32)));
  EXPECT_NE(base, RandomWords(2, 1, 3, 4, 5)) << "seed and name are no swap of one another";
}

TEST(PhiloxTest, UnitFloatStaysBelowOne) {
  EXPECT_EQ(UnitFloat(0), 0.0f);
  EXPECT_EQ(UnitFloat(0xff), 0.0f);
  EXPECT_EQ(UnitFloat(0x80000000), 0.5f);
  EXPECT_EQ(UnitFloat(0xffffffff), 1.0f - 0x1.0p-24f);
}

TEST(IdTest, KindsDoNotConvert) {
  static_assert(!std::is_convertible_v<WorldRank, PipelineRank>);
  static_assert(!std::is_constructible_v<WorldRank, PipelineRank>);
  static_assert(!std::is_convertible_v<int, StageId>);
  static_assert(!std::is_convertible_v<StageId, int>);
}

TEST(IdTest, ComparesHashesAndPrints) {
  EXPECT_LT(StageId(1), StageId(2));
  EXPECT_EQ(MicroBatch(3).index(), 3u);
  EXPECT_FALSE(StageId().valid());
  EXPECT_TRUE(StageId(0).valid());
  EXPECT_EQ((std::unordered_set<StageId>{StageId(1), StageId(1), StageId(2)}).size(), 2u);
  std::ostringstream out;
  out << PipelineRank(7);
  EXPECT_EQ(out.str(), "7");
}

absl::StatusOr<int> Half(int x) {
  if (x % 2 != 0) return absl::InvalidArgumentError("odd");
  return x / 2;
}
absl::StatusOr<int> Quarter(int x) {
  ASSIGN_OR_RETURN(const int half, Half(x));
  ASSIGN_OR_RETURN(const int quarter, Half(half));
  return quarter;
}
absl::Status CheckEven(int x) {
  RETURN_IF_ERROR(Half(x).status());
  return absl::OkStatus();
}

TEST(StatusTest, MacrosPassValuesOnAndErrorsUp) {
  EXPECT_EQ(*Quarter(8), 2);
  EXPECT_EQ(Quarter(6).status(), absl::InvalidArgumentError("odd"));
  EXPECT_TRUE(CheckEven(2).ok());
  EXPECT_EQ(CheckEven(3), absl::InvalidArgumentError("odd"));
}

TEST(CheckDeathTest, PrintsConditionValuesAndPlace) {
  const int stages = 3, ranks = 2;
  EXPECT_DEATH(CHECK_EQ(stages, ranks) << "one stage a rank",
               "base_test\\.cc:[0-9]+: CHECK failed: .*stages.*==.*ranks.*\\(3 against 2\\) one stage a rank");
  EXPECT_DEATH(CHECK_OK(absl::InternalError("broken")), "broken");
}

TEST(CheckTest, EvaluatesOnceAndDoesNotDangleAnElse) {
  int calls = 0;
  const auto count = [&] { return ++calls; };
  CHECK(count() == 1) << "never printed";
  if (calls == 0)
    CHECK(false);
  else
    calls = 10;
  EXPECT_EQ(calls, 10);
}

class Pooled : public RefCounted {
 public:
  explicit Pooled(int* returned) : returned_(returned) {}

 private:
  void OnUnreferenced() override {
    ++*returned_;
    delete this;
  }
  int* returned_;
};

TEST(RefTest, TheLastHandleReturnsTheObject) {
  int returned = 0;
  Ref<Pooled> first = MakeRef<Pooled>(&returned);
  Ref<Pooled> second = first;
  Ref<Pooled> moved = std::move(first);
  EXPECT_FALSE(static_cast<bool>(first));
  EXPECT_TRUE(moved == second);
  moved = nullptr;
  EXPECT_EQ(returned, 0);
  Pooled* raw = second.release();
  EXPECT_EQ(returned, 0);
  raw->Release();
  EXPECT_EQ(returned, 1);
}

}  // namespace
}  // namespace sluice
