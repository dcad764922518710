// Exact cuts for one stage on each rank: a chain of S stages over L layers. A minimax over suffixes is exact for the
// largest load alone; the second criteria are not suffix-wise, so each is found among the cuts that the earlier ones
// left: largest load (the least limit under which there is a path), then squares (sum), then bytes (minimax over the
// cuts of least squares), then the first cuts. Loads are cheap and bytes are not: a table without memory says which
// bytes can matter, and only those are asked for.
#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "stages/partition/evaluate.h"
#include "stages/partition/stage_caps.h"

namespace sluice::partition {
namespace {

constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
constexpr Wide kNoSquares = static_cast<Wide>(1) << 126;

// By (stage, first layer).
template <class Value>
class Table {
 public:
  Table(int stages, int layers, Value value) : width_(layers + 1), values_(size_t(stages + 1) * width_, value) {}
  Value& operator()(int stage, int layer) { return values_[size_t(stage) * width_ + layer]; }
  Value operator()(int stage, int layer) const { return values_[size_t(stage) * width_ + layer]; }

 private:
  size_t width_;
  std::vector<Value> values_;
};

// The chain with a limit on the load of each stage, memory left out.
class Chain {
 public:
  Chain(const PartitionProblem& problem, const StageTimes& times)
      : layers_(problem.layers()), stages_(problem.stages()), times_(times), least_load_(stages_, layers_, kNone) {
    least_load_(stages_, layers_) = 0;
    for (int stage = stages_ - 1; stage >= 0; --stage) {
      for (int begin = stage; begin < layers_; ++begin) {
        int64_t& least = least_load_(stage, begin);
        for (int end = FirstEnd(stage, begin); end <= EndMax(stage); ++end) {
          if (times_.Compute(stage, begin, end) >= least) break;
          if (least_load_(stage + 1, end) == kNone) continue;
          least = std::min(least, std::max(least_load_(stage + 1, end), times_(stage, begin, end)));
        }
      }
    }
  }

  int layers() const { return layers_; }
  int stages() const { return stages_; }
  int64_t least_load() const { return least_load_(0, 0); }
  int64_t Load(int stage, int begin, int end) const { return times_(stage, begin, end); }

  // Ends, ascending, with which the stage and some cut of what is behind it keep to `limit`.
  std::vector<int> Ends(int stage, int begin, int64_t limit) const {
    std::vector<int> ends;
    for (int end = FirstEnd(stage, begin); end <= EndMax(stage); ++end) {
      if (times_.Compute(stage, begin, end) > limit) break;
      if (least_load_(stage + 1, end) <= limit && times_(stage, begin, end) <= limit) ends.push_back(end);
    }
    return ends;
  }

 private:
  // No stage is empty, and the last one ends with the last layer.
  int FirstEnd(int stage, int begin) const { return stage == stages_ - 1 ? layers_ : begin + 1; }
  int EndMax(int stage) const { return layers_ - (stages_ - 1 - stage); }

  const int layers_, stages_;
  const StageTimes& times_;
  Table<int64_t> least_load_;  // of the stages from here on, the largest
};

// Any cuts under a load limit that keep to the caps.
class PathSearch {
 public:
  PathSearch(const Chain& chain, StageCaps& caps, int64_t limit)
      : chain_(chain), caps_(caps), limit_(limit), dead_(chain.stages(), chain.layers(), 0) {}

  // Empty: there are none.
  std::vector<int> Run() {
    cuts_ = {0};
    return Extend() ? cuts_ : std::vector<int>();
  }

 private:
  bool Extend() {
    const int stage = static_cast<int>(cuts_.size()) - 1, begin = cuts_.back();
    if (stage == chain_.stages()) return true;
    if (dead_(stage, begin) || !CanReachTheEnd(stage, begin)) return false;
    std::vector<int> ends = chain_.Ends(stage, begin, limit_);
    for (; !ends.empty(); ends.pop_back()) {
      const int end = ends.back();
      if (end > caps_.LastEnd(stage, begin) || dead_(stage + 1, end) || !caps_.Fits(stage, begin, end)) continue;
      cuts_.push_back(end);
      if (Extend()) return true;
      cuts_.pop_back();
    }
    dead_(stage, begin) = 1;
    return false;
  }
  // By what is known of the caps, which allow no less from further on.
  bool CanReachTheEnd(int stage, int begin) const {
    for (; stage < chain_.stages() && begin < chain_.layers(); ++stage) {
      begin = std::min(chain_.layers(), caps_.LastEnd(stage, begin));
    }
    return begin >= chain_.layers();
  }

  const Chain& chain_;
  StageCaps& caps_;
  const int64_t limit_;
  Table<char> dead_;  // no path from here
  std::vector<int> cuts_;
};

// The best cuts under the least load limit.
class BestPath {
 public:
  BestPath(const Chain& chain, StageCaps& caps, AskedBytes& bytes, int64_t limit)
      : chain_(chain),
        caps_(caps),
        bytes_(bytes),
        limit_(limit),
        squares_without_caps_(chain.stages(), chain.layers(), kUnknown),
        squares_(chain.stages(), chain.layers(), kUnknown),
        peak_(chain.stages(), chain.layers(), -1) {}

  std::vector<int> Run() {
    if (Squares(0, 0) == kNoSquares) return {};
    const int64_t peak = Peak(0, 0);
    std::vector<int> cuts = {0};
    for (int stage = 0; stage < chain_.stages(); ++stage) {
      for (const int end : TightEnds(stage, cuts.back())) {
        if (std::max(bytes_(stage, cuts.back(), end), Peak(stage + 1, end)) > peak) continue;
        cuts.push_back(end);
        break;
      }
    }
    return cuts;
  }

 private:
  static constexpr Wide kUnknown = -1;

  Wide Square(int stage, int begin, int end) const {
    const auto load = static_cast<Wide>(chain_.Load(stage, begin, end));
    return load * load;
  }
  Wide AtTheEnd(int begin) const { return begin == chain_.layers() ? 0 : kNoSquares; }

  // Least sum of squares of the stages from here on, memory left out.
  Wide SquaresWithoutCaps(int stage, int begin) {
    if (stage == chain_.stages()) return AtTheEnd(begin);
    if (squares_without_caps_(stage, begin) != kUnknown) return squares_without_caps_(stage, begin);
    Wide least = kNoSquares;
    for (const int end : chain_.Ends(stage, begin, limit_)) {
      const Wide rest = SquaresWithoutCaps(stage + 1, end);
      if (rest != kNoSquares) least = std::min(least, Square(stage, begin, end) + rest);
    }
    return squares_without_caps_(stage, begin) = least;
  }

  // Ends with the least squares that they can have, the most promising first.
  std::vector<std::pair<Wide, int>> Promising(int stage, int begin) {
    std::vector<std::pair<Wide, int>> ends;
    for (const int end : chain_.Ends(stage, begin, limit_)) {
      const Wide rest = SquaresWithoutCaps(stage + 1, end);
      if (rest != kNoSquares) ends.emplace_back(Square(stage, begin, end) + rest, end);
    }
    std::sort(ends.begin(), ends.end());
    return ends;
  }

  // The same under the caps.
  Wide Squares(int stage, int begin) {
    if (stage == chain_.stages()) return AtTheEnd(begin);
    if (squares_(stage, begin) != kUnknown) return squares_(stage, begin);
    Wide least = kNoSquares;
    for (const auto& [promise, end] : Promising(stage, begin)) {
      if (promise > least) break;
      if (!caps_.Fits(stage, begin, end)) continue;
      const Wide rest = Squares(stage + 1, end);
      if (rest != kNoSquares) least = std::min(least, Square(stage, begin, end) + rest);
    }
    return squares_(stage, begin) = least;
  }

  // Ends on paths of least squares, ascending.
  std::vector<int> TightEnds(int stage, int begin) {
    const Wide least = Squares(stage, begin);
    std::vector<int> ends;
    for (const auto& [promise, end] : Promising(stage, begin)) {
      if (promise > least) break;
      if (!caps_.Fits(stage, begin, end)) continue;
      const Wide rest = Squares(stage + 1, end);
      if (rest != kNoSquares && Square(stage, begin, end) + rest == least) ends.push_back(end);
    }
    std::sort(ends.begin(), ends.end());
    return ends;
  }

  // Least largest bytes of the stages from here on, on paths of least squares.
  int64_t Peak(int stage, int begin) {
    if (stage == chain_.stages()) return 0;
    if (peak_(stage, begin) >= 0) return peak_(stage, begin);
    int64_t least = kNone;
    for (const int end : TightEnds(stage, begin)) {
      least = std::min(least, std::max(bytes_(stage, begin, end), Peak(stage + 1, end)));
    }
    return peak_(stage, begin) = least;
  }

  const Chain& chain_;
  StageCaps& caps_;
  AskedBytes& bytes_;
  const int64_t limit_;
  Table<Wide> squares_without_caps_, squares_;
  Table<int64_t> peak_;
};

int64_t LargestLoad(const Chain& chain, const std::vector<int>& cuts) {
  int64_t load = 0;
  for (int stage = 0; stage < chain.stages(); ++stage) {
    load = std::max(load, chain.Load(stage, cuts[stage], cuts[stage + 1]));
  }
  return load;
}

// The least load limit under which cuts keep to the caps; nothing: under none.
std::optional<int64_t> LeastLimit(const Chain& chain, StageCaps& caps) {
  const auto load_within = [&](int64_t limit) -> std::optional<int64_t> {
    const std::vector<int> cuts = PathSearch(chain, caps, limit).Run();
    if (cuts.empty()) return std::nullopt;
    return LargestLoad(chain, cuts);
  };
  int64_t above = chain.least_load();  // limits from here on are open
  if (load_within(above)) return above;
  // Limits grow until one is enough, then they close in on the least.
  std::optional<int64_t> found;
  for (int64_t step = std::max<int64_t>(1, above / 64); !found; step *= 2) {
    const int64_t limit = step < kNone - 1 - above && step < kNone / 4 ? above + step : kNone - 1;
    found = load_within(limit);
    if (!found && limit == kNone - 1) return std::nullopt;
    if (!found) above = limit;
  }
  while (*found - above > 1) {
    const int64_t middle = above + (*found - above) / 2;
    if (const auto load = load_within(middle)) {
      found = load;
    } else {
      above = middle;
    }
  }
  return found;
}

}  // namespace

std::vector<int> ExactCuts(const PartitionProblem& problem, const StageTimes& times) {
  const Chain chain(problem, times);
  AskedBytes bytes(problem);
  StageCaps caps(problem, bytes, 0);
  const std::optional<int64_t> limit = LeastLimit(chain, caps);
  return limit ? BestPath(chain, caps, bytes, *limit).Run() : std::vector<int>();
}

std::vector<int> NearestToCaps(const PartitionProblem& problem) {
  const StageTimes times(problem);
  const Chain chain(problem, times);
  AskedBytes bytes(problem);
  const auto most_above = [&](const std::vector<int>& cuts) {
    int64_t above = std::numeric_limits<int64_t>::min();
    for (int rank = 0; rank < problem.ranks(); ++rank) {
      const int stage = problem.stages_of_rank[rank][0];
      above = std::max(above, bytes(stage, cuts[stage], cuts[stage + 1]) - problem.caps[rank]);
    }
    return above;
  };
  std::vector<int> best;
  for (int stage = 0; stage <= problem.stages(); ++stage) {  // to begin with: layers shared out evenly
    best.push_back(static_cast<int>(int64_t{problem.layers()} * stage / problem.stages()));
  }
  int64_t least = most_above(best), none = 0;  // with 0 above the caps there are none
  while (least - none > 1) {
    StageCaps caps(problem, bytes, none + (least - none) / 2);
    std::vector<int> cuts = PathSearch(chain, caps, kNone - 1).Run();
    if (cuts.empty()) {
      none += (least - none) / 2;
    } else {
      best = std::move(cuts);
      least = most_above(best);
    }
  }
  return best;
}

}  // namespace sluice::partition
