// For several stages on a rank. Where there are few cuts: all of them, as far as the loads let them be the best. Else a
// local search: from several first cuts, moves one cut to the best place between its neighbours, or two cuts by one
// layer each, as long as the score improves. Deterministic. Bytes are asked for only where the loads don't decide.
#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "base/philox.h"
#include "stages/partition/evaluate.h"
#include "stages/partition/stage_caps.h"

namespace sluice::partition {
namespace {

constexpr int kRandomStarts = 12;
// From so many layers on there are no random starts, and loads alone decide first: bytes are dear there.
constexpr int kDeep = 128;

// Scores cuts, bytes last and only if they can matter.
class Scorer {
 public:
  Scorer(const PartitionProblem& problem, const StageTimes& times)
      : problem_(problem), times_(times), bytes_(problem) {}

  // Nothing: not better than `best`, or equal to it.
  std::optional<Score> ScoreIfNoWorse(const std::vector<int>& cuts, const std::optional<Score>& best) {
    Score score;
    for (const std::vector<int>& stages : problem_.stages_of_rank) {
      int64_t load = 0;
      for (const int stage : stages) load += times_(stage, cuts[stage], cuts[stage + 1]);
      score.load_ns_max = std::max(score.load_ns_max, load);
      score.load_squares += static_cast<Wide>(load) * load;
    }
    const auto loads = [](const Score& s) { return std::pair(s.load_ns_max, s.load_squares); };
    if (best && best->overflow_bytes == 0 && loads(score) > loads(*best)) return std::nullopt;
    for (int rank = 0; rank < problem_.ranks(); ++rank) {
      int64_t bytes = 0;
      for (const int stage : problem_.stages_of_rank[rank]) bytes += bytes_(stage, cuts[stage], cuts[stage + 1]);
      if (!problem_.caps.empty()) score.overflow_bytes += std::max<int64_t>(0, bytes - problem_.caps[rank]);
      score.bytes_max = std::max(score.bytes_max, bytes);
    }
    if (best && *best < score) return std::nullopt;
    return score;
  }

 private:
  const PartitionProblem& problem_;
  const StageTimes& times_;
  AskedBytes bytes_;
};

struct Found {
  std::vector<int> cuts;
  std::optional<Score> score;
};

// Takes the candidate if it is better, or as good and first. True: it was taken.
bool TakeIfBetter(Scorer& scorer, const std::vector<int>& candidate, Found& best) {
  const std::optional<Score> score = scorer.ScoreIfNoWorse(candidate, best.score);
  if (!score || (best.score && *score == *best.score && !(candidate < best.cuts))) return false;
  best = {candidate, score};
  return true;
}

class LocalSearch {
 public:
  explicit LocalSearch(Scorer& scorer) : scorer_(scorer) {}

  // Improves `cuts` until no move helps.
  Found Improve(const std::vector<int>& cuts) {
    Found best{cuts, scorer_.ScoreIfNoWorse(cuts, std::nullopt)};
    while (MoveOne(best) || MoveTwo(best)) {
    }
    return best;
  }

 private:
  bool MoveOne(Found& best) {
    bool moved = false;
    for (size_t i = 1; i + 1 < best.cuts.size(); ++i) {
      std::vector<int> candidate = best.cuts;
      for (int at = candidate[i - 1] + 1; at < candidate[i + 1]; ++at) {
        candidate[i] = at;
        moved |= TakeIfBetter(scorer_, candidate, best);
      }
    }
    return moved;
  }

  // All layers between two cuts shift by one, or the stages beside both change by one.
  bool MoveTwo(Found& best) {
    bool moved = false;
    for (size_t i = 1; i + 1 < best.cuts.size(); ++i) {
      for (size_t j = i + 1; j + 1 < best.cuts.size(); ++j) {
        for (const auto& [first, second] : {std::pair{-1, -1}, {-1, 1}, {1, -1}, {1, 1}}) {
          std::vector<int> candidate = best.cuts;
          for (size_t k = i; k <= j; ++k) {
            if (k == i || (first == second)) candidate[k] += first;
          }
          if (first != second) candidate[j] += second;
          if (std::is_sorted(candidate.begin(), candidate.end(), std::less_equal<>())) {
            moved |= TakeIfBetter(scorer_, candidate, best);
          }
        }
      }
    }
    return moved;
  }

  Scorer& scorer_;
};

std::vector<int> EvenCuts(int layers, int stages) {
  std::vector<int> cuts;
  for (int stage = 0; stage <= stages; ++stage) cuts.push_back(static_cast<int>(int64_t{layers} * stage / stages));
  return cuts;
}

// The exact cuts if each stage had a rank of its own, without caps.
std::vector<int> ChainCuts(const PartitionProblem& problem, const StageTimes& times) {
  PartitionProblem chain = problem;
  chain.caps.clear();
  chain.bytes = nullptr;
  chain.stages_of_rank.clear();
  for (int stage = 0; stage < problem.stages(); ++stage) chain.stages_of_rank.push_back({stage});
  return ExactCuts(chain, times);
}

// Cuts at distinct places, from a seed.
std::vector<int> RandomCuts(int layers, int stages, uint64_t seed) {
  std::vector<int> places;
  for (int i = 1; i < layers; ++i) places.push_back(i);
  for (size_t i = places.size(); i > 1; --i) {
    std::swap(places[i - 1], places[MixBits(seed * 0x10001 + i) % i]);
  }
  std::vector<int> cuts(places.begin(), places.begin() + stages - 1);
  cuts.push_back(0);
  cuts.push_back(layers);
  std::sort(cuts.begin(), cuts.end());
  return cuts;
}

// Goes through all cuts from `best` on, except those whose first stages already load a rank more than the best does.
class Enumeration {
 public:
  Enumeration(const PartitionProblem& problem, const StageTimes& times, Scorer& scorer, Found best)
      : problem_(problem), times_(times), scorer_(scorer), best_(std::move(best)), load_(problem.ranks()) {
    ranks_of_stage_.resize(problem.stages());
    for (int rank = 0; rank < problem.ranks(); ++rank) {
      for (const int stage : problem.stages_of_rank[rank]) ranks_of_stage_[stage].push_back(rank);
    }
  }

  Found Run() {
    cuts_ = {0};
    Extend();
    return std::move(best_);
  }

 private:
  void Extend() {
    const int stage = static_cast<int>(cuts_.size()) - 1, begin = cuts_.back();
    if (stage == problem_.stages()) {
      TakeIfBetter(scorer_, cuts_, best_);
      return;
    }
    const int left = problem_.stages() - 1 - stage;
    for (int end = left == 0 ? problem_.layers() : begin + 1; end <= problem_.layers() - left; ++end) {
      const int64_t time = times_(stage, begin, end);
      bool hopeless = false;
      for (const int rank : ranks_of_stage_[stage]) hopeless |= (load_[rank] += time) > best_.score->load_ns_max;
      cuts_.push_back(end);
      if (!hopeless || best_.score->overflow_bytes > 0) Extend();
      cuts_.pop_back();
      for (const int rank : ranks_of_stage_[stage]) load_[rank] -= time;
    }
  }

  const PartitionProblem& problem_;
  const StageTimes& times_;
  Scorer& scorer_;
  Found best_;
  std::vector<int64_t> load_;  // per rank, of the stages cut so far
  std::vector<std::vector<int>> ranks_of_stage_;
  std::vector<int> cuts_;
};

// Whether there are at most `most` ways to cut.
bool FewCuts(int layers, int stages, int64_t most) {
  double ways = 1;
  for (int k = 1; k < stages; ++k) ways = ways * (layers - k) / k;
  return ways <= static_cast<double>(most);
}

// The best that local search finds from several first cuts.
Found BestFrom(const std::vector<std::vector<int>>& starts, Scorer& scorer) {
  LocalSearch search(scorer);
  Found best;
  for (const std::vector<int>& start : starts) {
    Found found = search.Improve(start);
    if (!best.score || *found.score < *best.score || (*found.score == *best.score && found.cuts < best.cuts)) {
      best = std::move(found);
    }
  }
  return best;
}

}  // namespace

SearchResult SearchCuts(const PartitionProblem& problem, const StageTimes& times, int64_t enumerated_max) {
  std::vector<std::vector<int>> starts = {ChainCuts(problem, times), EvenCuts(problem.layers(), problem.stages())};
  const bool deep = problem.layers() > kDeep;
  for (int i = 0; i < (deep ? 0 : kRandomStarts); ++i) {
    starts.push_back(RandomCuts(problem.layers(), problem.stages(), i));
  }
  if (deep) {
    PartitionProblem loads = problem;
    loads.caps.clear();
    loads.bytes = nullptr;
    Scorer scorer(loads, times);
    starts = {BestFrom(starts, scorer).cuts};
  }
  Scorer scorer(problem, times);
  Found best = BestFrom(starts, scorer);
  const bool few = FewCuts(problem.layers(), problem.stages(), enumerated_max);
  if (few) best = Enumeration(problem, times, scorer, std::move(best)).Run();
  return {.cuts = std::move(best.cuts), .exact = few};
}

}  // namespace sluice::partition
