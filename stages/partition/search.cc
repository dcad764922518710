// Local search for several stages on a rank: from several first cuts, moves one cut to the best place between its
// neighbours, or two cuts by one layer each, as long as the score improves. Deterministic.
#include <algorithm>
#include <functional>
#include <utility>

#include "base/philox.h"
#include "stages/partition/evaluate.h"

namespace sluice::partition {
namespace {

constexpr int kRandomStarts = 12;

class Search {
 public:
  Search(const PartitionProblem& problem, const StageTimes& times) : problem_(problem), times_(times) {}

  // Improves `cuts` until no move helps.
  Score Improve(std::vector<int>& cuts) const {
    Score best = Judge(problem_, times_, cuts, nullptr);
    while (MoveOne(cuts, best) || MoveTwo(cuts, best)) {
    }
    return best;
  }

 private:
  bool Try(std::vector<int>& cuts, std::vector<int>& candidate, Score& best) const {
    const Score score = Judge(problem_, times_, candidate, nullptr);
    if (!(score < best) && !(score == best && candidate < cuts)) return false;
    best = score;
    cuts = candidate;
    return true;
  }

  bool MoveOne(std::vector<int>& cuts, Score& best) const {
    bool moved = false;
    for (size_t i = 1; i + 1 < cuts.size(); ++i) {
      std::vector<int> candidate = cuts;
      for (int at = cuts[i - 1] + 1; at < cuts[i + 1]; ++at) {
        candidate[i] = at;
        moved |= Try(cuts, candidate, best);
      }
    }
    return moved;
  }

  // All layers between two cuts shift by one, or the stages beside both change by one.
  bool MoveTwo(std::vector<int>& cuts, Score& best) const {
    bool moved = false;
    for (size_t i = 1; i + 1 < cuts.size(); ++i) {
      for (size_t j = i + 1; j + 1 < cuts.size(); ++j) {
        for (const auto& [first, second] : {std::pair{-1, -1}, {-1, 1}, {1, -1}, {1, 1}}) {
          std::vector<int> candidate = cuts;
          for (size_t k = i; k <= j; ++k) {
            if (k == i || (first == second)) candidate[k] += first;
          }
          if (first != second) candidate[j] += second;
          if (std::is_sorted(candidate.begin(), candidate.end(), std::less_equal<>())) {
            moved |= Try(cuts, candidate, best);
          }
        }
      }
    }
    return moved;
  }

  const PartitionProblem& problem_;
  const StageTimes& times_;
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

}  // namespace

std::vector<int> SearchCuts(const PartitionProblem& problem, const StageTimes& times) {
  std::vector<std::vector<int>> starts = {ChainCuts(problem, times), EvenCuts(problem.layers(), problem.stages())};
  for (int i = 0; i < kRandomStarts; ++i) starts.push_back(RandomCuts(problem.layers(), problem.stages(), i));
  const Search search(problem, times);
  std::vector<int> best;
  Score best_score;
  for (std::vector<int>& cuts : starts) {
    const Score score = search.Improve(cuts);
    if (!best.empty() && !(score < best_score) && !(score == best_score && cuts < best)) continue;
    best = cuts;
    best_score = score;
  }
  return best;
}

}  // namespace sluice::partition
