// The search against exhaustive search, its bounds against what is found, and its promises towards the generators.
#include "scheduler/search.h"

#include <algorithm>
#include <limits>
#include <map>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/generators.h"
#include "scheduler/lowering.h"
#include "scheduler/verifier.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

// All orders of a small problem on one placement, by depth first search in the order of begins; only whole branches
// whose work can't end before the best known are left out. Shares nothing with the search.
class Exhaustive {
 public:
  enum class MicroBatches { kAscending, kAnyOrder };

  Exhaustive(const SearchProblem& problem, Placement placement, MicroBatches micro_batches)
      : problem_(problem),
        cut_(problem.cuts[0]),
        placement_(std::move(placement)),
        micro_batches_(micro_batches),
        m_(problem.micro_batches),
        ranks_(problem.ranks) {
    for (int r = 0; r < problem.ranks; ++r) {
      int64_t bytes = 0;
      for (int s = 0; s < placement_.stages(); ++s) {
        if (RankOf(s) == r) bytes += cut_.memory[s].forward_bytes;
      }
      ranks_[r].cap = problem.in_flight_cap > 0
                          ? static_cast<int64_t>(problem.in_flight_cap * static_cast<double>(bytes))
                          : std::numeric_limits<int64_t>::max();
    }
    ends_.assign(placement_.stages(), std::vector<Ends>(m_));
  }

  // The shortest objective; max() if no order fits.
  int64_t Best() {
    Descend(0, 0);
    return best_;
  }

 private:
  static constexpr int64_t kNot = -1;
  struct Ends {
    int64_t forward = kNot, gradient = kNot, weight = kNot;
  };
  struct Rank {
    int64_t first = kNot, free = 0, bytes = 0, cap = 0;
  };

  int RankOf(int s) const { return placement_.RankOf(StageId(s)).value(); }
  int64_t Come(int64_t end, int from, int to) const {
    if (end == kNot || RankOf(from) == RankOf(to)) return end;
    return end + cut_.costs.transfer_latency_ns;
  }

  bool Hopeless() const {
    for (int r = 0; r < problem_.ranks; ++r) {
      int64_t end = ranks_[r].free;
      for (int s = 0; s < placement_.stages(); ++s) {
        if (RankOf(s) != r) continue;
        const StageCosts& c = cut_.costs.stages[s];
        for (const Ends& e : ends_[s]) {
          if (e.forward == kNot) end += c.forward_ns;
          if (e.gradient == kNot) end += std::min(c.backward_ns, c.input_gradient_ns + c.weight_gradient_ns);
          if (e.gradient != kNot && e.weight == kNot) end += c.weight_gradient_ns;
        }
      }
      if (end - (problem_.objective == Objective::kSpan ? std::max<int64_t>(0, ranks_[r].first) : 0) >= best_)
        return true;
    }
    return false;
  }

  void Descend(int64_t time, int last_rank) {
    if (Hopeless()) return;
    bool done = true;
    for (int s = 0; s < placement_.stages(); ++s) {
      for (int i = 0; i < m_; ++i) {
        if (ends_[s][i].weight != kNot) continue;
        done = false;
        TryForward(s, i, time, last_rank);
        TryGradients(s, i, time, last_rank);
      }
    }
    if (!done) return;
    int64_t length = 0;
    for (const Rank& rank : ranks_)
      length = std::max(length, rank.free - (problem_.objective == Objective::kSpan ? rank.first : 0));
    best_ = std::min(best_, length);
  }

  // The micro-batches before i are behind that point, or order doesn't matter.
  bool Turn(int s, int i, int64_t Ends::*end) const {
    if (micro_batches_ == MicroBatches::kAnyOrder && end != &Ends::weight) return true;
    return i == 0 || ends_[s][i - 1].*end != kNot;
  }

  void TryForward(int s, int i, int64_t time, int last_rank) {
    if (ends_[s][i].forward != kNot || !Turn(s, i, &Ends::forward)) return;
    const int64_t input = s == 0 ? 0 : Come(ends_[s - 1][i].forward, s - 1, s);
    Play(s, i, input, cut_.costs.stages[s].forward_ns, cut_.memory[s].forward_bytes, 0, &Ends::forward, nullptr, time,
         last_rank);
  }
  void TryGradients(int s, int i, int64_t time, int last_rank) {
    if (ends_[s][i].forward == kNot) return;
    const StageCosts& c = cut_.costs.stages[s];
    const MicroBatchMemory& memory = cut_.memory[s];
    if (ends_[s][i].gradient != kNot) {
      if (Turn(s, i, &Ends::weight)) {
        Play(s, i, 0, c.weight_gradient_ns, 0, -memory.weight_bytes, &Ends::weight, nullptr, time, last_rank);
      }
      return;
    }
    if (!Turn(s, i, &Ends::gradient)) return;
    const int64_t input = s + 1 == placement_.stages() ? ends_[s][i].forward : Come(ends_[s + 1][i].gradient, s + 1, s);
    const int64_t change = memory.weight_bytes - memory.forward_bytes;
    Play(s, i, input, c.input_gradient_ns, change, 0, &Ends::gradient, nullptr, time, last_rank);
    if (Turn(s, i, &Ends::weight)) {
      Play(s, i, input, c.backward_ns, change, -memory.weight_bytes, &Ends::gradient, &Ends::weight, time, last_rank);
    }
  }

  void Play(int s, int i, int64_t input, int64_t duration, int64_t bytes, int64_t bytes_after, int64_t Ends::*end,
            int64_t Ends::*also, int64_t time, int last_rank) {
    Rank& rank = ranks_[RankOf(s)];
    const int64_t begin = std::max(rank.free, input);
    if (input == kNot || rank.bytes + bytes > rank.cap || begin < time || (begin == time && RankOf(s) < last_rank))
      return;
    const Rank before = rank;
    if (rank.first == kNot) rank.first = begin;
    rank.free = begin + duration;
    rank.bytes += bytes + bytes_after;
    ends_[s][i].*end = rank.free;
    if (also != nullptr) ends_[s][i].*also = rank.free;
    Descend(begin, RankOf(s));
    ends_[s][i].*end = kNot;
    if (also != nullptr) ends_[s][i].*also = kNot;
    rank = before;
  }

  const SearchProblem& problem_;
  const ModelCut& cut_;
  const Placement placement_;
  const MicroBatches micro_batches_;
  const int m_;
  std::vector<Rank> ranks_;
  std::vector<std::vector<Ends>> ends_;  // per stage and micro-batch
  int64_t best_ = std::numeric_limits<int64_t>::max();
};

int64_t ExhaustiveBest(const SearchProblem& problem,
                       Exhaustive::MicroBatches order = Exhaustive::MicroBatches::kAscending) {
  const int chunks = problem.cuts[0].chunks;
  int64_t best = Exhaustive(problem, Placement::Loop(problem.ranks, chunks), order).Best();
  if (chunks == 2) best = std::min(best, Exhaustive(problem, Placement::V(problem.ranks), order).Best());
  return best;
}

// Uneven stages; every other time a fused B is cheaper than I and W.
SearchProblem RandomProblem(std::mt19937& random, int ranks, int chunks, int micro_batches) {
  const auto draw = [&](int low, int high) { return low + static_cast<int>(random() % (high - low + 1)); };
  SearchProblem problem{.ranks = ranks, .micro_batches = micro_batches, .cuts = {{.chunks = chunks}}};
  ModelCut& cut = problem.cuts[0];
  const bool fused = draw(0, 1) == 1;
  for (int s = 0; s < ranks * chunks; ++s) {
    StageCosts costs{.forward_ns = draw(1, 9), .input_gradient_ns = draw(1, 9), .weight_gradient_ns = draw(1, 9)};
    costs.backward_ns = costs.input_gradient_ns + costs.weight_gradient_ns - (fused ? draw(0, 1) : 0);
    cut.costs.stages.push_back(costs);
    const int bytes = draw(2, 10);
    cut.memory.push_back({bytes, draw(0, bytes + 2)});
  }
  cut.costs.transfer_latency_ns = draw(0, 4);
  problem.in_flight_cap = std::vector<double>{0, 1.5, 2, 2.5, 3}[draw(0, 4)];
  problem.objective = draw(0, 1) == 0 ? Objective::kSpan : Objective::kMakespan;
  return problem;
}

// Each stage in two, which need not be equal.
ModelCut Halved(const ModelCut& cut) {
  ModelCut halved{.chunks = 2 * cut.chunks, .costs = cut.costs};
  halved.costs.stages.clear();
  for (size_t s = 0; s < cut.costs.stages.size(); ++s) {
    for (const int more : {0, 1}) {
      const auto half = [more](int64_t whole) { return (whole + more) / 2; };
      const StageCosts& c = cut.costs.stages[s];
      halved.costs.stages.push_back(
          {half(c.forward_ns), half(c.input_gradient_ns), half(c.weight_gradient_ns), half(c.backward_ns)});
      halved.memory.push_back({half(cut.memory[s].forward_bytes), half(cut.memory[s].weight_bytes)});
    }
  }
  return halved;
}

std::string Words(const SearchProblem& problem) {
  std::string words = std::to_string(problem.ranks) + " ranks, " + std::to_string(problem.micro_batches) +
                      " micro-batches, " + ObjectiveName(problem.objective) + ", cap " +
                      std::to_string(problem.in_flight_cap) + ", latency " +
                      std::to_string(problem.cuts[0].costs.transfer_latency_ns) + "; F I W B bytes:";
  for (size_t s = 0; s < problem.cuts[0].costs.stages.size(); ++s) {
    const StageCosts& c = problem.cuts[0].costs.stages[s];
    const MicroBatchMemory& memory = problem.cuts[0].memory[s];
    for (int64_t number : {c.forward_ns, c.input_gradient_ns, c.weight_gradient_ns, c.backward_ns, memory.forward_bytes,
                           memory.weight_bytes}) {
      words += " " + std::to_string(number);
    }
    words += ";";
  }
  return words;
}

void ExpectAsGoodAsExhaustive(const SearchProblem& problem,
                              Exhaustive::MicroBatches order = Exhaustive::MicroBatches::kAscending) {
  const int64_t best = ExhaustiveBest(problem, order);
  const auto result = Search(problem);
  if (best == std::numeric_limits<int64_t>::max()) {
    EXPECT_FALSE(result.ok()) << Words(problem);
    return;
  }
  ASSERT_TRUE(result.ok()) << result.status() << " but exhaustive search finds " << best << ": " << Words(problem);
  EXPECT_EQ(result->found.times.Of(problem.objective), best) << result->method << ": " << Words(problem);
  EXPECT_TRUE(result->optimal) << Words(problem);
  EXPECT_LE(result->lower_bound.Of(problem.objective), best) << Words(problem);
}

TEST(SearchTest, EqualsExhaustiveSearchOnSmallCases) {
  std::mt19937 random(7);
  for (const auto& [ranks, micro_batches, cases] :
       {std::tuple(1, 4, 10), {2, 2, 40}, {2, 3, 40}, {2, 4, 20}, {3, 2, 20}, {3, 3, 10}, {3, 4, 4}}) {
    for (int k = 0; k < cases; ++k) ExpectAsGoodAsExhaustive(RandomProblem(random, ranks, 1, micro_batches));
  }
}

TEST(SearchTest, EqualsExhaustiveSearchWithTwoStagesPerRank) {
  std::mt19937 random(8);
  for (const auto& [ranks, micro_batches, cases] : {std::tuple(1, 2, 10), {2, 1, 10}, {2, 2, 10}, {3, 1, 5}}) {
    for (int k = 0; k < cases; ++k) ExpectAsGoodAsExhaustive(RandomProblem(random, ranks, 2, micro_batches));
  }
}

TEST(SearchTest, NoOrderOfMicroBatchesIsBetterThanTheAscendingOne) {
  std::mt19937 random(9);
  for (int k = 0; k < 20; ++k) {
    SearchProblem problem = RandomProblem(random, 2, 1, 2 + k % 2);
    for (StageCosts& c : problem.cuts[0].costs.stages) c.backward_ns = c.input_gradient_ns + c.weight_gradient_ns;
    ExpectAsGoodAsExhaustive(problem, Exhaustive::MicroBatches::kAnyOrder);
  }
}

ModelCut Uniform(int ranks, const StageCosts& stage, int64_t latency, MicroBatchMemory memory) {
  ModelCut cut{.costs = UniformCosts(ranks, stage), .memory = std::vector<MicroBatchMemory>(ranks, memory)};
  cut.costs.transfer_latency_ns = latency;
  return cut;
}

// The zero-bubble paper's row for 1.5 billion parameters on 8 ranks; memory as there.
SearchProblem Published(int micro_batches, double cap) {
  const StageCosts times = micro_batches == 32 ? StageCosts{18'513'000, 18'086'000, 9'331'000, 27'417'000}
                                               : StageCosts{18'522'000, 18'086'000, 9'337'000, 27'423'000};
  const int64_t h = 2304, a = 24;
  return {.ranks = 8,
          .micro_batches = micro_batches,
          .cuts = {Uniform(8, times, micro_batches == 32 ? 626'000 : 601'000, {34 * h + 5 * a * 1024, 32 * h})},
          .in_flight_cap = cap,
          .objective = Objective::kSpan};
}

TEST(SearchTest, IsWithinOnePercentOfTheBoundAtThePublishedCosts) {
  for (int micro_batches : {24, 32}) {
    const SearchResult result = *Search(Published(micro_batches, 16), {.evaluations = 20'000});
    EXPECT_LE(static_cast<double>(result.found.times.span_ns), 1.01 * static_cast<double>(result.lower_bound.span_ns))
        << result.method;
    EXPECT_LE(result.found.memory_share_max, 16);
  }
}

TEST(SearchTest, IsNeverWorseThanAGeneratorAndItsResultsAreProvenUnderTheCap) {
  std::mt19937 random(10);
  for (int k = 0; k < 24; ++k) {
    SearchProblem problem = RandomProblem(random, 2 + k % 3, 1, 4 + k % 5);
    problem.cuts.push_back(Halved(problem.cuts[0]));
    const auto result = Search(problem, {.evaluations = 3'000, .exact_labels = 2'000});
    ASSERT_TRUE(result.ok()) << result.status() << Words(problem);
    for (const Candidate& generator : result->generators) {
      if (!generator.refusal.empty()) continue;
      EXPECT_LE(result->found.times.Of(problem.objective), generator.times.Of(problem.objective))
          << generator.name << Words(problem);
    }
    for (Objective objective : {Objective::kSpan, Objective::kMakespan}) {
      EXPECT_GE(result->found.times.Of(objective), result->lower_bound.Of(objective)) << Words(problem);
    }
    if (problem.in_flight_cap > 0) {
      EXPECT_LE(result->found.memory_share_max, problem.in_flight_cap + 1e-9);
    }
    const TimelineMetrics metrics = Measure(*SimulateSchedule(result->schedule, result->cut.costs));
    EXPECT_EQ(result->found.times, (Times{metrics.makespan_ns, metrics.span_ns})) << Words(problem);
    const auto program = Lower(result->schedule);
    ASSERT_TRUE(program.ok()) << program.status();
    EXPECT_TRUE(Verify(*program).ok()) << Verify(*program).status();
  }
}

TEST(SearchTest, FindsWhatNoGeneratorHas) {
  // A slow first stage, as an embedding makes it.
  SearchProblem problem{
      .ranks = 4, .micro_batches = 8, .cuts = {Uniform(4, {1000, 1000, 1000, 2000}, 50, {1, 1})}, .in_flight_cap = 5};
  problem.cuts[0].costs.stages[0].forward_ns = 1300;
  problem.cuts[0].costs.stages[2].weight_gradient_ns = 700;
  const SearchResult result = *Search(problem, {.evaluations = 60'000, .exact_labels = 0});
  EXPECT_LT(result.found.times.span_ns, result.generators[0].times.span_ns) << result.method;
}

TEST(SearchTest, TheSameSeedGivesTheSameResult) {
  SearchProblem problem = Published(24, 9);
  const SearchResult first = *Search(problem, {.seed = 3, .evaluations = 5'000});
  const SearchResult second = *Search(problem, {.seed = 3, .evaluations = 5'000});
  EXPECT_EQ(first.schedule, second.schedule);
  EXPECT_EQ(first.evaluations, second.evaluations);
}

TEST(SearchTest, EndsWhenTimeIsUp) {
  int asked = 0;
  SearchOptions options{.evaluations = 1'000'000'000, .out_of_time = [&] { return ++asked > 100; }};
  EXPECT_TRUE(Search(Published(32, 16), options).ok());
  EXPECT_LT(asked, 1000);
}

TEST(SearchTest, CutsAProfileWithItsSlotsOrWithEvenMemory) {
  CostProfile profile{.stages = {{.costs = {7, 8, 9, 17}, .stash_bytes = 5, .gradient_stash_bytes = 2}}};
  ModelCut cut = CutModel(profile, 1, 2);
  ASSERT_EQ(cut.costs.stages.size(), 2u);
  EXPECT_EQ(cut.costs.stages[0].forward_ns + cut.costs.stages[1].forward_ns, 7);
  EXPECT_EQ(cut.memory[0].forward_bytes + cut.memory[1].forward_bytes, 5);
  EXPECT_EQ(cut.memory[0].weight_bytes + cut.memory[1].weight_bytes, 7);
  profile.stages[0].stash_bytes = 0;
  cut = CutModel(profile, 1, 2, 0.25);
  EXPECT_EQ(cut.memory[0].forward_bytes, 4 * cut.memory[1].weight_bytes);
}

TEST(SearchTest, RefusesWhatCantBe) {
  const auto message = [](SearchProblem problem) { return std::string(Search(problem).status().message()); };
  const SearchProblem good = Published(32, 16);
  SearchProblem bad = good;
  bad.ranks = 7;
  EXPECT_THAT(message(bad), HasSubstr("needs the costs of 7 stages"));
  bad = good;
  bad.micro_batches = 0;
  EXPECT_THAT(message(bad), HasSubstr("at least one rank, one micro-batch and one cut"));
  bad = good;
  bad.cuts[0].costs.stages[3].weight_gradient_ns = -1;
  EXPECT_THAT(message(bad), HasSubstr("stage 3 has a time of -1 ns"));
  bad = good;
  bad.in_flight_cap = -1;
  EXPECT_THAT(message(bad), HasSubstr("can't be negative"));
  bad = good;
  bad.in_flight_cap = 0.5;
  EXPECT_THAT(message(bad), HasSubstr("no order was found that fits the memory cap"));
  bad = good;
  bad.in_flight_cap = 0, bad.rank_bytes_cap = 1000, bad.cuts[0].memory.clear();
  EXPECT_THAT(message(bad), HasSubstr("needs the bytes of each stage"));
}

}  // namespace
}  // namespace sluice
