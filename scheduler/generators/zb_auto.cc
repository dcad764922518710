// The zero-bubble heuristic (Qi et al. 2023, "ZB-1p" with a cap of p micro-batches in flight, "ZB-2p" with 2p; any
// cap). Plays the pipeline with the costs of each stage and decides as it goes: fill gaps with weight gradients, run
// ahead while memory allows. Eight variants of the rules are tried; the one of least span is kept. Where stages differ
// in time, so are those that play with the mean times: a rank that is ahead by chance no longer misleads the rules
// there.

#include <algorithm>
#include <limits>
#include <utility>

#include "base/status.h"
#include "scheduler/generators/common.h"
#include "scheduler/generators/pass_costs.h"

namespace sluice {
namespace {

struct Variant {
  bool bubble_before_first_backward;  // a warm-up forward may delay the first I
  bool prioritize_backward;           // a rank that is ahead may skip a forward rather than delay an I
  bool greedy_weights;                // fill a gap too short for W even if it makes no new worst bubble
};

struct Rank {
  int64_t clock = 0, memory = 0, bubble = 0;
  std::vector<int64_t> forward_end, input_end;
  int weights = 0;
  std::vector<Action> actions;

  int forwards() const { return static_cast<int>(forward_end.size()); }
  int inputs() const { return static_cast<int>(input_end.size()); }
};

class Heuristic {
 public:
  // One stage on each rank: `costs` are indexed by either. `cap` in forward passes of the rank's stage.
  Heuristic(const std::vector<PassCosts>& costs, int micro_batches, double cap, Variant variant)
      : p_(static_cast<int>(costs.size())),
        m_(micro_batches),
        cap_(cap),
        costs_(costs),
        variant_(variant),
        ranks_(costs.size()) {}

  void Run() {
    WarmUp();
    for (int i = 1; i < m_; ++i) {
      const std::vector<bool> takes_forward = DecideForwards();
      for (int r = 0; r < p_; ++r) {
        if (takes_forward[r]) FillAndForward(r);
      }
      for (int r = p_ - 1; r >= 0; --r) FillAndInput(r);
    }
    for (int r = 0; r < p_; ++r) {
      while (CanWeight(r)) Weight(r);
    }
  }

  std::vector<std::vector<Action>> Lists() {
    std::vector<std::vector<Action>> lists;
    for (Rank& rank : ranks_) lists.push_back(std::move(rank.actions));
    return lists;
  }

 private:
  // When the input of the rank's next F or I has come; 0 at the ends of the pipeline.
  int64_t ForwardArrival(int r) const {
    return r == 0 ? 0 : ranks_[r - 1].forward_end[ranks_[r].forwards()] + costs_[r - 1].transfer_ns;
  }
  int64_t InputArrival(int r) const {
    return r == p_ - 1 ? 0 : ranks_[r + 1].input_end[ranks_[r].inputs()] + costs_[r + 1].transfer_ns;
  }

  void Begin(Rank& rank, int64_t arrival, int64_t duration) {
    const int64_t begin = std::max(rank.clock, arrival);
    if (rank.forwards() > 0) {
      rank.bubble += begin - rank.clock;
      worst_bubble_ = std::max(worst_bubble_, rank.bubble);
    }
    rank.clock = begin + duration;
  }
  void Forward(int r) {
    Rank& rank = ranks_[r];
    Begin(rank, ForwardArrival(r), costs_[r].forward_ns);
    rank.actions.push_back(sluice::Forward(StageId(r), MicroBatch(rank.forwards())));
    rank.forward_end.push_back(rank.clock);
    rank.memory += costs_[r].forward_bytes;
  }
  void Input(int r) {
    Rank& rank = ranks_[r];
    Begin(rank, InputArrival(r), costs_[r].input_gradient_ns);
    rank.actions.push_back(InputGradient(StageId(r), MicroBatch(rank.inputs())));
    rank.input_end.push_back(rank.clock);
    rank.memory -= costs_[r].forward_bytes - costs_[r].weight_bytes;
  }
  bool CanWeight(int r) const { return ranks_[r].weights < ranks_[r].inputs(); }
  void Weight(int r) {
    Rank& rank = ranks_[r];
    rank.clock += costs_[r].weight_gradient_ns;
    rank.actions.push_back(WeightGradient(StageId(r), MicroBatch(rank.weights++)));
    rank.memory -= costs_[r].weight_bytes;
  }
  bool Fits(int r, int64_t memory) const {
    const auto bytes = static_cast<double>(costs_[r].forward_bytes);
    return static_cast<double>(memory) + bytes <= cap_ * bytes;
  }

  // Weight gradients into the gap before `arrival`: those that fit, and one more if the rest of the gap would be a new
  // worst bubble.
  void FillGap(int r, int64_t arrival) {
    Rank& rank = ranks_[r];
    while (CanWeight(r) && rank.clock + costs_[r].weight_gradient_ns <= arrival) Weight(r);
    const int64_t gap = arrival - rank.clock;
    if (gap > 0 && CanWeight(r) && (variant_.greedy_weights || rank.bubble + gap > worst_bubble_)) Weight(r);
  }
  void FillAndForward(int r) {
    while (!Fits(r, ranks_[r].memory) && CanWeight(r)) Weight(r);
    FillGap(r, ForwardArrival(r));
    Forward(r);
  }
  void FillAndInput(int r) {
    FillGap(r, InputArrival(r));
    if (r == 0 && ranks_[r].forwards() == m_) {
      while (CanWeight(r)) Weight(r);
    }
    Input(r);
  }

  // F0 everywhere, then as many forwards as fit before the first I can come, strictly fewer on each further rank.
  void WarmUp() {
    for (int r = 0; r < p_; ++r) Forward(r);
    std::vector<int> extra(p_, 0);
    int64_t first_input_end = ranks_[p_ - 1].clock + costs_[p_ - 1].input_gradient_ns;
    for (int r = p_ - 2; r >= 0; --r) {
      int64_t clock = ranks_[r].clock, memory = ranks_[r].memory;
      const int64_t arrival = first_input_end + costs_[r + 1].transfer_ns;
      const auto early_enough = [&] {
        return variant_.bubble_before_first_backward ? clock + costs_[r].forward_ns <= arrival : clock < arrival;
      };
      for (; 1 + extra[r] < m_ && Fits(r, memory) && early_enough(); ++extra[r]) {
        clock += costs_[r].forward_ns;
        memory += costs_[r].forward_bytes;
      }
      first_input_end = std::max(clock, arrival) + costs_[r].input_gradient_ns;
    }
    for (int r = 1; r < p_; ++r) {
      while (extra[r] > 0 && extra[r] >= extra[r - 1] && 1 + extra[r - 1] < m_) --extra[r];
    }
    for (int r = 0; r < p_; ++r) {
      for (int k = 0; k < extra[r]; ++k) Forward(r);
    }
    for (int r = p_ - 1; r >= 0; --r) Input(r);
  }

  // Which ranks take one forward in this round. A rank skips if the one after it does.
  std::vector<bool> DecideForwards() const {
    std::vector<bool> takes(p_);
    for (int r = p_ - 1; r >= 0; --r) takes[r] = (r == p_ - 1 || takes[r + 1]) && WantsForward(r);
    return takes;
  }
  bool WantsForward(int r) const {
    const Rank& rank = ranks_[r];
    if (rank.forwards() == m_) return false;
    if (!variant_.prioritize_backward || r == p_ - 1 || rank.forwards() - ranks_[r + 1].forwards() < 2) return true;
    const PassCosts& next = costs_[r + 1];
    const int64_t next_input = ranks_[r + 1].clock + next.forward_ns + next.input_gradient_ns + next.transfer_ns;
    if (rank.clock >= next_input) return false;
    int64_t clock = rank.clock;
    int64_t memory = rank.memory;
    for (int w = rank.weights; !Fits(r, memory) && w < rank.inputs(); ++w) {
      clock += costs_[r].weight_gradient_ns;
      memory -= costs_[r].weight_bytes;
    }
    if (clock + costs_[r].forward_ns <= next_input) return true;
    return next_input - rank.clock > worst_bubble_ - rank.bubble;
  }

  const int p_, m_;
  const double cap_;
  const std::vector<PassCosts>& costs_;
  const Variant variant_;
  std::vector<Rank> ranks_;
  int64_t worst_bubble_ = 0;
};

// The schedule of least span by `costs` among the variants that play with `played`.
void KeepBest(const std::vector<PassCosts>& costs, const std::vector<PassCosts>& played, double cap, Schedule& best,
              int64_t& best_span) {
  for (int bits = 7; bits >= 0; --bits) {
    Heuristic heuristic(played, best.micro_batches, cap,
                        {.bubble_before_first_backward = (bits & 4) != 0,
                         .prioritize_backward = (bits & 2) != 0,
                         .greedy_weights = (bits & 1) != 0});
    heuristic.Run();
    Schedule candidate = EmptySchedule(best.name, best.placement, best.micro_batches);
    candidate.ranks = heuristic.Lists();
    const int64_t span = SpanOf(candidate, costs);
    if (span >= best_span) continue;
    best_span = span;
    best = std::move(candidate);
  }
}

}  // namespace

absl::StatusOr<Schedule> GenerateZeroBubbleAuto(const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams("zb_auto", params, 1));
  RETURN_IF_ERROR(CheckCap("zb_auto", params));
  ASSIGN_OR_RETURN(const std::vector<PassCosts> costs, CostsOfStages(params.costs, params.ranks));
  const std::vector<PassCosts> mean = WithMeanTimes(costs);
  const double cap = InFlightCap(params);
  Schedule best = EmptySchedule("zb_auto", Placement::Loop(params.ranks, 1), params.micro_batches);
  int64_t best_span = std::numeric_limits<int64_t>::max();
  KeepBest(costs, costs, cap, best, best_span);
  if (mean != costs) KeepBest(costs, mean, cap, best, best_span);
  return best;
}

}  // namespace sluice
