#include "scheduler/search/local_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/philox.h"

namespace sluice::search {
namespace {

constexpr int kReach = 12;            // a move's farthest way, in actions
constexpr double kColdest = 0.01;     // share of the first temperature that is left at the end
constexpr double kMeanWeight = 0.3;   // of the mean over all ranks in the energy, beside the longest
constexpr int64_t kClockPeriod = 64;  // evaluations between two looks at the time

class Annealer {
 public:
  Annealer(const Layout& layout, const Order& start, uint64_t seed, const LocalSearchBudget& budget)
      : layout_(layout),
        budget_(budget),
        evaluator_(layout),
        order_(start),
        seed_(MixBits(seed)),
        counts_(layout.stages.size()) {
    for (const LayoutStage& stage : layout.stages) may_fuse_ |= stage.fused_is_cheaper();
  }

  LocalSearchResult Run() {
    evaluator_.Run(order_);
    Accept();
    best_ = {order_, evaluator_.objective_ns(), 0};
    const double hottest = budget_.heat * MeanActionNs();
    for (int64_t k = 0; k < budget_.evaluations && best_.objective_ns > budget_.target_ns; ++k) {
      if (k % kClockPeriod == 0 && budget_.out_of_time && budget_.out_of_time()) break;
      const double share = static_cast<double>(k) / static_cast<double>(budget_.evaluations);
      Try(hottest * std::pow(kColdest, share));
      ++best_.evaluations;
    }
    return std::move(best_);
  }

 private:
  uint64_t Random(uint64_t bound) { return MixBits(seed_ + ++draws_) % bound; }
  double RandomShare() { return static_cast<double>(MixBits(seed_ + ++draws_) >> 11) * 0x1.0p-53; }

  double MeanActionNs() const {
    int64_t sum = 0;
    for (const LayoutStage& stage : layout_.stages) sum += stage.forward_ns + stage.input_ns + stage.weight_ns;
    return static_cast<double>(sum) / static_cast<double>(3 * layout_.stages.size());
  }

  double Energy() const {
    double sum = 0;
    for (int r = 0; r < layout_.ranks(); ++r) sum += static_cast<double>(evaluator_.rank_length_ns(r));
    return static_cast<double>(evaluator_.objective_ns()) + kMeanWeight * sum / layout_.ranks();
  }

  void Accept() {
    energy_ = Energy();
    begins_.resize(layout_.ranks());
    worst_rank_ = 0;
    for (int r = 0; r < layout_.ranks(); ++r) {
      begins_[r] = evaluator_.begins(r);
      if (evaluator_.rank_length_ns(r) > evaluator_.rank_length_ns(worst_rank_)) worst_rank_ = r;
    }
  }

  void Try(double temperature) {
    const auto r = static_cast<int>(Random(2) == 0 ? Random(layout_.ranks()) : NearWorst());
    RankOrder& steps = order_[r];
    before_ = steps;
    const bool changed = may_fuse_ && Random(8) == 0 ? FuseOrPart(steps) : Move(r);
    if (!changed) return;
    if (Fits(r) && evaluator_.Run(order_)) {
      const double worse = Energy() - energy_;
      if (worse <= 0 || RandomShare() < std::exp(-worse / temperature)) {
        Accept();
        if (evaluator_.objective_ns() < best_.objective_ns) {
          best_.order = order_;
          best_.objective_ns = evaluator_.objective_ns();
        }
        return;
      }
    }
    std::swap(steps, before_);
  }

  uint64_t NearWorst() {
    const int r = worst_rank_ + static_cast<int>(Random(3)) - 1;
    return static_cast<uint64_t>(std::clamp(r, 0, layout_.ranks() - 1));
  }

  // Takes the step at `from` to the place `to`; false if that changes nothing.
  static bool Shift(RankOrder& steps, size_t from, size_t to) {
    const auto begin = steps.begin();
    if (from < to) std::rotate(begin + from, begin + from + 1, begin + to + 1);
    if (from > to) std::rotate(begin + to, begin + from, begin + from + 1);
    return from != to;
  }

  bool Move(int r) {
    RankOrder& steps = order_[r];
    const auto size = static_cast<int64_t>(steps.size());
    int64_t from = static_cast<int64_t>(Random(size));
    const auto way = static_cast<int64_t>(1 + Random(kReach));
    if (Random(2) == 0) {
      // Something that comes later into the first gap at or behind `from`, or what waits in the gap to a later place.
      for (int64_t k = from; k < size; ++k) {
        if (Gap(r, k) == 0) continue;
        const int64_t other = std::min(size - 1, k + way);
        return Random(2) == 0 ? Differs(steps, other, k) && Shift(steps, other, k)
                              : Differs(steps, k, other) && Shift(steps, k, other);
      }
    }
    const int64_t to = std::clamp<int64_t>(Random(2) == 0 ? from + way : from - way, 0, size - 1);
    return Differs(steps, from, to) && Shift(steps, from, to);
  }

  // Whether the two places hold different steps: else the move is a shorter one.
  static bool Differs(const RankOrder& steps, int64_t a, int64_t b) { return steps[a] != steps[b]; }

  // Idle time before the rank's k-th step, as last accepted.
  int64_t Gap(int r, int64_t k) const {
    if (k == 0) return 0;
    return begins_[r][k] - begins_[r][k - 1] - Duration(before_[k - 1]);
  }
  int64_t Duration(Step step) const {
    const LayoutStage& stage = layout_.stages[step.stage];
    switch (step.kind) {
      case ActionKind::kForward:
        return stage.forward_ns;
      case ActionKind::kInputGradient:
        return stage.input_ns;
      case ActionKind::kBackward:
        return stage.backward_ns;
      default:
        return stage.weight_ns;
    }
  }

  // A B becomes I and W; an I becomes B, and the next W of its stage goes.
  bool FuseOrPart(RankOrder& steps) {
    const size_t k = Random(steps.size());
    const Step step = steps[k];
    if (step.kind == ActionKind::kBackward) {
      steps[k].kind = ActionKind::kInputGradient;
      steps.insert(steps.begin() + static_cast<int64_t>(k) + 1, {step.stage, ActionKind::kWeightGradient});
      return true;
    }
    if (step.kind != ActionKind::kInputGradient) return false;
    const auto weight =
        std::find(steps.begin() + static_cast<int64_t>(k), steps.end(), Step{step.stage, ActionKind::kWeightGradient});
    if (weight == steps.end()) return false;
    steps.erase(weight);
    steps[k].kind = ActionKind::kBackward;
    return true;
  }

  bool Fits(int r) {
    for (int s : layout_.stages_of_rank[r]) counts_[s] = {};
    int64_t bytes = 0;
    for (const Step step : order_[r]) {
      const LayoutStage& stage = layout_.stages[step.stage];
      if (!Allowed(counts_[step.stage], step.kind)) return false;
      Count(step.kind, counts_[step.stage]);
      const bool fused = step.kind == ActionKind::kBackward;
      const int64_t during = fused ? BytesDelta(stage, ActionKind::kInputGradient) : BytesDelta(stage, step.kind);
      if (bytes + during > layout_.cap_bytes[r]) return false;
      bytes += BytesDelta(stage, step.kind);
    }
    return true;
  }

  const Layout& layout_;
  const LocalSearchBudget& budget_;
  Evaluator evaluator_;
  Order order_;
  RankOrder before_;
  uint64_t seed_, draws_ = 0;
  std::vector<StageCounts> counts_;           // scratch of Fits
  std::vector<std::vector<int64_t>> begins_;  // per rank and step, of the order last accepted
  int worst_rank_ = 0;
  double energy_ = 0;
  bool may_fuse_ = false;
  LocalSearchResult best_;
};

}  // namespace

LocalSearchResult Improve(const Layout& layout, const Order& start, uint64_t seed, const LocalSearchBudget& budget) {
  return Annealer(layout, start, seed, budget).Run();
}

}  // namespace sluice::search
