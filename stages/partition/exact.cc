// The exact dynamic program for one stage on each rank. A minimax over prefixes is exact for the largest load alone;
// the second criteria are not prefix-wise, so each is found by a pass of its own over the edges that the earlier ones
// left: largest load (minimax), then squares (sum), then bytes (minimax among the edges of least squares), then the
// first cuts.
#include <algorithm>
#include <functional>
#include <limits>

#include "stages/partition/evaluate.h"

namespace sluice::partition {
namespace {

// An edge (stage, begin, end) of the graph whose paths from (0, 0) to (S, L) are the cuts.
struct Edge {
  int64_t load = 0;
  int64_t bytes = 0;
  bool allowed = false;
};

class Chain {
 public:
  Chain(const PartitionProblem& problem, const StageTimes& times)
      : layers_(problem.layers()), stages_(problem.stages()), edges_(size_t(stages_) * (layers_ + 1) * (layers_ + 1)) {
    std::vector<int> rank_of_stage(stages_);
    for (int rank = 0; rank < problem.ranks(); ++rank) rank_of_stage[problem.stages_of_rank[rank][0]] = rank;
    ForEach([&](int stage, int begin, int end, Edge& edge) {
      edge.load = times(stage, begin, end);
      if (problem.bytes) edge.bytes = problem.bytes(stage, begin, end);
      edge.allowed = problem.caps.empty() || edge.bytes <= problem.caps[rank_of_stage[stage]];
    });
  }

  // Visits the edges that can be part of a cut without an empty stage.
  void ForEach(const std::function<void(int, int, int, Edge&)>& visit) {
    for (int stage = 0; stage < stages_; ++stage) {
      for (int begin = stage; begin < layers_; ++begin) {
        if (stage == 0 && begin > 0) break;
        const int last = layers_ - (stages_ - 1 - stage);
        for (int end = stage == stages_ - 1 ? layers_ : begin + 1; end <= last; ++end)
          visit(stage, begin, end, At(stage, begin, end));
      }
    }
  }

  // Best value of the paths from (0, 0) to each (stage, layer) by `combine`; `none` where there is none.
  template <class Value, class Cost, class Combine>
  std::vector<Value> Forward(Value start, Value none, Cost cost, Combine combine) {
    std::vector<Value> best(size_t(stages_ + 1) * (layers_ + 1), none);
    best[0] = start;
    ForEach([&](int stage, int begin, int end, Edge& edge) {
      const Value before = best[Node(stage, begin)];
      if (!edge.allowed || before == none) return;
      Value& after = best[Node(stage + 1, end)];
      after = std::min(after, combine(before, cost(edge)));
    });
    return best;
  }

  size_t Node(int stage, int layer) const { return size_t(stage) * (layers_ + 1) + layer; }
  Edge& At(int stage, int begin, int end) {
    return edges_[(size_t(stage) * (layers_ + 1) + begin) * (layers_ + 1) + end];
  }

  // The lexicographically first path of allowed edges.
  std::vector<int> FirstPath() {
    std::vector<char> reaches(size_t(stages_ + 1) * (layers_ + 1), 0);
    reaches[Node(stages_, layers_)] = 1;
    for (int stage = stages_ - 1; stage >= 0; --stage) {
      for (int begin = 0; begin < layers_; ++begin) {
        for (int end = begin + 1; end <= layers_; ++end) {
          if (At(stage, begin, end).allowed && reaches[Node(stage + 1, end)]) reaches[Node(stage, begin)] = 1;
        }
      }
    }
    if (!reaches[0]) return {};
    std::vector<int> cuts = {0};
    for (int stage = 0; stage < stages_; ++stage) {
      int end = cuts.back() + 1;
      while (!At(stage, cuts.back(), end).allowed || !reaches[Node(stage + 1, end)]) ++end;
      cuts.push_back(end);
    }
    return cuts;
  }

  int layers() const { return layers_; }
  int stages() const { return stages_; }

 private:
  int layers_, stages_;
  std::vector<Edge> edges_;
};

constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
constexpr Wide kNoSquares = static_cast<Wide>(1) << 126;

int64_t Larger(int64_t a, int64_t b) { return std::max(a, b); }

// Keeps only edges that lie on a path of least sum of squares.
void KeepLeastSquares(Chain& chain) {
  const auto square = [](const Edge& edge) { return static_cast<Wide>(edge.load) * edge.load; };
  const std::vector<Wide> best = chain.Forward<Wide>(0, kNoSquares, square, [](Wide a, Wide b) { return a + b; });
  std::vector<char> useful(best.size(), 0);
  useful[chain.Node(chain.stages(), chain.layers())] = 1;
  for (int stage = chain.stages() - 1; stage >= 0; --stage) {
    for (int begin = 0; begin < chain.layers(); ++begin) {
      for (int end = begin + 1; end <= chain.layers(); ++end) {
        Edge& edge = chain.At(stage, begin, end);
        const Wide before = best[chain.Node(stage, begin)];
        edge.allowed = edge.allowed && useful[chain.Node(stage + 1, end)] && before != kNoSquares &&
                       before + square(edge) == best[chain.Node(stage + 1, end)];
        if (edge.allowed) useful[chain.Node(stage, begin)] = 1;
      }
    }
  }
}

// Keeps only edges of at most the least possible largest `cost`. False: there is no path.
template <class Cost>
bool KeepLeastMaximum(Chain& chain, Cost cost) {
  const std::vector<int64_t> best = chain.Forward<int64_t>(std::numeric_limits<int64_t>::min(), kNone, cost, Larger);
  const int64_t least = best[chain.Node(chain.stages(), chain.layers())];
  if (least == kNone) return false;
  chain.ForEach([&](int, int, int, Edge& edge) { edge.allowed = edge.allowed && cost(edge) <= least; });
  return true;
}

}  // namespace

std::vector<int> ExactCuts(const PartitionProblem& problem, const StageTimes& times) {
  Chain chain(problem, times);
  if (!KeepLeastMaximum(chain, [](const Edge& edge) { return edge.load; })) return {};
  KeepLeastSquares(chain);
  KeepLeastMaximum(chain, [](const Edge& edge) { return edge.bytes; });
  return chain.FirstPath();
}

std::vector<int> NearestToCaps(const PartitionProblem& problem) {
  PartitionProblem free = problem;
  free.caps.clear();
  const StageTimes times(free);
  Chain chain(free, times);
  std::vector<int64_t> cap_of_stage(problem.stages());
  for (int rank = 0; rank < problem.ranks(); ++rank) {
    cap_of_stage[problem.stages_of_rank[rank][0]] = problem.caps[rank];
  }
  // From here on an edge's bytes are what it has above its cap.
  chain.ForEach([&](int stage, int, int, Edge& edge) { edge.bytes -= cap_of_stage[stage]; });
  KeepLeastMaximum(chain, [](const Edge& edge) { return edge.bytes; });
  return chain.FirstPath();
}

}  // namespace sluice::partition
