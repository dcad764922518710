// Drawing tokens: the rules one by one against what they say, frequencies against the softmax in double precision.
#include "kernels/cpu/sampling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "base/philox.h"
#include "kernels/cpu/team.h"

namespace sluice::cpu {
namespace {

class Sampler {
 public:
  Sampler(std::vector<std::vector<float>> logits, SamplingRules rules)
      : vocabulary_(static_cast<int64_t>(logits[0].size())), logits_(std::move(logits)), rules_(logits_.size(), rules) {
    seen_.resize(logits_.size() * SeenWords(vocabulary_));
    for (size_t i = 0; i < rules_.size(); ++i) rules_[i].sample = static_cast<int64_t>(i);
  }
  void See(int64_t sequence, int32_t token) {
    seen_[sequence * SeenWords(vocabulary_) + token / 32] |= 1 << token % 32;
  }
  bool Saw(int64_t sequence, int32_t token) const {
    return seen_[sequence * SeenWords(vocabulary_) + token / 32] >> (token % 32) & 1;
  }

  std::vector<int32_t> Draw(int threads, int32_t position) {
    const auto rows = static_cast<int64_t>(logits_.size());
    std::vector<float> logits;
    std::vector<int32_t> sequences, positions(rows, position), tokens(rows, -1);
    for (int64_t i = 0; i < rows; ++i) {
      logits.insert(logits.end(), logits_[i].begin(), logits_[i].end());
      sequences.push_back(static_cast<int32_t>(i));
    }
    Team team(threads, {});
    const auto view = [](auto& values, DType type, Shape shape) {
      return TensorView{reinterpret_cast<std::byte*>(values.data()), type, shape};
    };
    SampleTokens(team, {.logits = view(logits, DType::kF32, {rows, vocabulary_}),
                        .sequences = view(sequences, DType::kI32, {rows}),
                        .positions = view(positions, DType::kI32, {rows}),
                        .rules = view(rules_, DType::kI32, {rows, kSamplingRulesWords}),
                        .seen = view(seen_, DType::kI32, {rows, SeenWords(vocabulary_)}),
                        .tokens = view(tokens, DType::kI32, {rows})});
    return tokens;
  }

 private:
  int64_t vocabulary_;
  std::vector<std::vector<float>> logits_;
  std::vector<SamplingRules> rules_;
  std::vector<int32_t> seen_;
};

std::vector<float> Logits(int64_t vocabulary, uint64_t seed) {
  std::vector<float> logits(vocabulary);
  for (int64_t i = 0; i < vocabulary; ++i) {
    logits[i] = 8 * UnitFloat(Philox({static_cast<uint32_t>(i), 0, 0, 0}, seed)[0]) - 4;
  }
  return logits;
}

std::set<int32_t> Drawn(std::vector<float> logits, SamplingRules rules, int times) {
  Sampler sampler({std::move(logits)}, rules);
  std::set<int32_t> tokens;
  for (int i = 0; i < times; ++i) tokens.insert(sampler.Draw(1, i)[0]);
  return tokens;
}

TEST(SamplingTest, WithoutTemperatureTheLowestOfTheLikeliest) {
  Sampler sampler({{1, 3, 3, 2}, {0, -1, -2, -3}}, {});
  EXPECT_EQ(sampler.Draw(2, 0), (std::vector<int32_t>{1, 0}));
  EXPECT_TRUE(sampler.Saw(0, 1) && !sampler.Saw(0, 0) && sampler.Saw(1, 0));
}

TEST(SamplingTest, FrequenciesAreTheSoftmax) {
  const std::vector<float> logits = Logits(40, 3);
  constexpr float kTemperature = 1.7f;
  constexpr int kSequences = 64, kDraws = 400;
  Sampler sampler(std::vector<std::vector<float>>(kSequences, logits), {.temperature = kTemperature, .seed = 5});
  std::vector<double> counts(logits.size());
  for (int i = 0; i < kDraws; ++i) {
    for (const int32_t token : sampler.Draw(2, i)) ++counts[token];
  }
  double all = 0;
  for (const float logit : logits) all += std::exp(logit / kTemperature);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double p = std::exp(logits[i] / kTemperature) / all, n = kSequences * kDraws;
    EXPECT_NEAR(counts[i], n * p, 5 * std::sqrt(n * p) + 1) << i;  // five deviations
  }
}

TEST(SamplingTest, SeedSampleAndPositionKeyTheDrawAndNothingElse) {
  const std::vector<float> logits = Logits(500, 4);
  const std::vector<std::vector<float>> five(5, logits);
  Sampler one(five, {.temperature = 1, .seed = 9}), other(five, {.temperature = 1, .seed = 10});
  const std::vector<int32_t> first = one.Draw(1, 3);
  EXPECT_EQ(one.Draw(3, 3), first);
  EXPECT_NE(one.Draw(1, 4), first);
  EXPECT_NE(other.Draw(1, 3), first);
  EXPECT_GT(std::set<int32_t>(first.begin(), first.end()).size(), 1u);
}

TEST(SamplingTest, TopKLeavesTheLikeliest) {
  const std::vector<float> logits{0.5f, 0.1f, 0.4f, 0.4f, -1, 0.3f};
  EXPECT_EQ(Drawn(logits, {.temperature = 3, .top_k = 3}, 200), (std::set<int32_t>{0, 2, 3}));
  EXPECT_EQ(Drawn(logits, {.temperature = 3, .top_k = 2}, 200), (std::set<int32_t>{0, 2}));  // the lower of equals
  EXPECT_EQ(Drawn(logits, {.temperature = 3, .top_k = 100}, 400).size(), logits.size());
}

TEST(SamplingTest, TopPLeavesTheFewestThatHaveIt) {
  std::vector<float> logits(200, -30.0f);  // their probabilities: 0.5, 0.3, 0.15, 0.05
  logits[7] = std::log(0.5f);
  logits[150] = std::log(0.3f);
  logits[3] = std::log(0.15f);
  logits[199] = std::log(0.05f);
  EXPECT_EQ(Drawn(logits, {.temperature = 1, .top_p = 0.4f}, 200), (std::set<int32_t>{7}));
  EXPECT_EQ(Drawn(logits, {.temperature = 1, .top_p = 0.7f}, 200), (std::set<int32_t>{7, 150}));
  EXPECT_EQ(Drawn(logits, {.temperature = 1, .top_p = 0.9f}, 200), (std::set<int32_t>{3, 7, 150}));
  // Of those that top_k leaves: 0.5 and 0.3 are 0.625 and 0.375.
  EXPECT_EQ(Drawn(logits, {.temperature = 1, .top_p = 0.6f, .top_k = 2}, 200), (std::set<int32_t>{7}));
}

TEST(SamplingTest, NucleusMayBeWide) {
  EXPECT_EQ(Drawn(std::vector<float>(300, 1.0f), {.temperature = 1, .top_p = 0.999f}, 5000).size(), 300u);
}

TEST(SamplingTest, RepetitionPenaltyPushesDownWhatWasSeen) {
  Sampler sampler({{2, 3, -1, 1}, {-1, -1.5f, -1.2f, -2}}, {.repetition_penalty = 2});
  sampler.See(0, 1);
  sampler.See(1, 0);
  EXPECT_EQ(sampler.Draw(1, 0), (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(sampler.Draw(1, 1), (std::vector<int32_t>{1, 1}));  // 2/2, 3/2, -1, 1 and -2, -1.5, -2.4, -2
}

TEST(SamplingTest, LogitsThatAreNoNumbersGiveATokenAllTheSame) {
  Sampler sampler({{NAN, NAN, NAN}}, {.temperature = 1, .top_p = 0.5f, .top_k = 2});
  const int32_t token = sampler.Draw(1, 0)[0];
  EXPECT_TRUE(token >= 0 && token < 3);
}

}  // namespace
}  // namespace sluice::cpu
