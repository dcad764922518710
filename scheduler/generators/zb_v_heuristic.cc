#include "scheduler/generators/zb_v_heuristic.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "base/check.h"

namespace sluice {
namespace {

// Whether a gap too short for W is filled all the same before a forward, or before an I of stage b, where it would be a
// new worst bubble.
struct Variant {
  bool fill_before_forward;
  bool fill_before_input;
};

enum Chunk { kA, kB };  // stage r on the way down, stage 2p-1-r on the way up

struct Rank {
  int64_t clock = 0, memory = 0, bubble = 0;
  int forwards[2] = {}, inputs[2] = {};  // passes that have run, by chunk
  std::deque<Action> weights;            // not yet run, in the order of their I's
  std::vector<Action> actions;
};

class Heuristic {
 public:
  // `approved`: the bubbles of a run that this one should improve on; a rank may waste what it wasted less than the
  // worst one there. Empty: none.
  Heuristic(const std::vector<PassCosts>& costs, const std::vector<int64_t>& caps, int micro_batches, Variant variant,
            const std::vector<int64_t>& approved)
      : p_(static_cast<int>(caps.size())),
        m_(micro_batches),
        costs_(costs),
        caps_(caps),
        variant_(variant),
        ranks_(caps.size()),
        allowance_(caps.size(), 0),
        forward_end_(costs.size()),
        input_end_(costs.size()) {
    for (size_t r = 0; r < approved.size(); ++r) {
      allowance_[r] = *std::max_element(approved.begin(), approved.end()) - approved[r];
    }
  }

  void Run() {
    WarmUp();
    Level();
    while (!Done()) CHECK_GT(InputRound() + ForwardRound(), 0);
    for (int r = 0; r < p_; ++r) {
      while (!ranks_[r].weights.empty()) Weight(r);
    }
  }

  std::vector<int64_t> Bubbles() const {
    std::vector<int64_t> bubbles;
    for (const Rank& rank : ranks_) bubbles.push_back(rank.bubble);
    return bubbles;
  }
  Schedule Take() {
    Schedule schedule = EmptySchedule("zb_v", Placement::V(p_), m_);
    for (int r = 0; r < p_; ++r) schedule.ranks[r] = std::move(ranks_[r].actions);
    return schedule;
  }

 private:
  static constexpr int64_t kNever = -1;

  int Stage(int r, Chunk chunk) const { return chunk == kA ? r : 2 * p_ - 1 - r; }
  int RankOf(int stage) const { return stage < p_ ? stage : 2 * p_ - 1 - stage; }
  const PassCosts& CostsOf(int r, Chunk chunk) const { return costs_[Stage(r, chunk)]; }

  // When the output of micro-batch i has come from stage `from` to rank r; kNever: it has not been computed.
  int64_t Arrival(const std::vector<std::vector<int64_t>>& ends, int from, int i, int r) const {
    if (static_cast<int>(ends[from].size()) <= i) return kNever;
    return ends[from][i] + (RankOf(from) == r ? 0 : costs_[from].transfer_ns);
  }
  int64_t ForwardArrival(int r, Chunk chunk) const {
    const int stage = Stage(r, chunk), i = ranks_[r].forwards[chunk];
    if (i == m_) return kNever;
    return stage == 0 ? 0 : Arrival(forward_end_, stage - 1, i, r);
  }
  int64_t InputArrival(int r, Chunk chunk) const {
    const int stage = Stage(r, chunk), i = ranks_[r].inputs[chunk];
    if (i >= ranks_[r].forwards[chunk]) return kNever;
    return stage == 2 * p_ - 1 ? forward_end_[stage][i] : Arrival(input_end_, stage + 1, i, r);
  }
  bool Fits(int r, Chunk chunk) const { return ranks_[r].memory + CostsOf(r, chunk).forward_bytes <= caps_[r]; }
  // Whether an F of stage b still fits after this pass, once all that has passed stage b is given back. So no rank gets
  // stuck: the oldest micro-batch that has not passed stage b everywhere always can.
  bool LeavesRoom(int r, Chunk chunk) const {
    const int only_a = ranks_[r].forwards[kA] + 1 - ranks_[r].forwards[kB];
    return chunk == kB || only_a * CostsOf(r, kA).forward_bytes + CostsOf(r, kB).forward_bytes <= caps_[r];
  }
  bool Done() const {
    return std::all_of(ranks_.begin(), ranks_.end(), [&](const Rank& rank) { return rank.inputs[kA] == m_; });
  }

  // Both return when the pass ends.
  int64_t Begin(int r, int64_t arrival, int64_t duration) {
    Rank& rank = ranks_[r];
    if (rank.forwards[kA] > 0) rank.bubble += std::max<int64_t>(0, arrival - rank.clock);
    return rank.clock = std::max(rank.clock, arrival) + duration;
  }
  void PutForward(int r, Chunk chunk) {
    Rank& rank = ranks_[r];
    const PassCosts& costs = CostsOf(r, chunk);
    const int stage = Stage(r, chunk);
    forward_end_[stage].push_back(Begin(r, ForwardArrival(r, chunk), costs.forward_ns));
    rank.actions.push_back(Forward(StageId(stage), MicroBatch(rank.forwards[chunk]++)));
    rank.memory += costs.forward_bytes;
  }
  void PutInput(int r, Chunk chunk) {
    Rank& rank = ranks_[r];
    const PassCosts& costs = CostsOf(r, chunk);
    const StageId stage(Stage(r, chunk));
    input_end_[stage.index()].push_back(Begin(r, InputArrival(r, chunk), costs.input_gradient_ns));
    const MicroBatch micro_batch(rank.inputs[chunk]++);
    rank.actions.push_back(InputGradient(stage, micro_batch));
    rank.weights.push_back(WeightGradient(stage, micro_batch));
    rank.memory -= costs.forward_bytes - costs.weight_bytes;
  }
  int64_t NextWeightTime(int r) const { return costs_[ranks_[r].weights.front().stage.index()].weight_gradient_ns; }
  void Weight(int r) {
    Rank& rank = ranks_[r];
    rank.clock += NextWeightTime(r);
    rank.memory -= costs_[rank.weights.front().stage.index()].weight_bytes;
    rank.actions.push_back(rank.weights.front());
    rank.weights.pop_front();
  }

  // W's into the gap before `arrival`: those that fit, and, if asked to, one more where the rest of the gap would be a
  // new worst bubble.
  void FillGap(int r, int64_t arrival, bool fill_short_gap) {
    Rank& rank = ranks_[r];
    while (!rank.weights.empty() && rank.clock + NextWeightTime(r) <= arrival) Weight(r);
    if (!fill_short_gap || rank.weights.empty() || arrival <= rank.clock) return;
    int64_t worst = allowance_[r];
    for (const Rank& other : ranks_) worst = std::max(worst, other.bubble);
    if (arrival - rank.clock > worst - rank.bubble) Weight(r);
  }

  // F0 of stage a down the ranks, of stage b up again. While a rank waits for the latter it takes forwards of stage a,
  // as do all before it, as far as its memory allows for those that will follow from leveling.
  void WarmUp() {
    for (int r = 0; r < p_; ++r) PutForward(r, kA);
    for (int r = p_ - 1; r >= 0; --r) {
      const PassCosts& a = CostsOf(r, kA);
      const auto takes_another = [&] {
        const bool early = ranks_[r].clock + a.forward_ns <= ForwardArrival(r, kB);
        const int64_t bytes = (2 * r + 1) * a.forward_bytes + CostsOf(r, kB).forward_bytes;
        return early && ranks_[r].forwards[kA] < m_ && ranks_[r].memory + bytes <= caps_[r];
      };
      while (r < p_ - 1 && takes_another() && AllMayTakeAnother(r)) {
        for (int before = 0; before <= r; ++before) PutForward(before, kA);
      }
      PutForward(r, kB);
    }
  }
  // Of stage a, on ranks 0 ... r.
  bool AllMayTakeAnother(int r) const {
    for (int before = 0; before <= r; ++before) {
      if (!Fits(before, kA) || !LeavesRoom(before, kA)) return false;
    }
    return true;
  }

  // Forwards of both chunks in turn until each rank is as far ahead as the one before it.
  void Level() {
    Chunk chunk = kA;
    for (int r = 1; r < p_; ++r) {
      const Rank &rank = ranks_[r], &before = ranks_[r - 1];
      const auto is_behind = [&] {
        return rank.forwards[kA] + rank.forwards[kB] < before.forwards[kA] + before.forwards[kB] ||
               (rank.forwards[kB] <= before.forwards[kB] && before.forwards[kB] < m_);
      };
      for (int idle = 0; is_behind() && idle < 2; chunk = chunk == kA ? kB : kA) {
        ++idle;
        for (int after = p_ - 1; after >= r; --after) {
          if (ForwardArrival(after, chunk) == kNever || !Fits(after, chunk) || !LeavesRoom(after, chunk)) continue;
          PutForward(after, chunk);
          idle = 0;
        }
      }
    }
  }

  // One I on each rank that can: of stage a where its input has been computed before this round, else of stage b.
  // Returns how many.
  int InputRound() {
    std::vector<char> takes_a(p_);
    for (int r = 0; r < p_; ++r) {
      const Rank& rank = ranks_[r];
      const bool b_is_ahead = rank.inputs[kA] < rank.inputs[kB];
      takes_a[r] = b_is_ahead && (rank.inputs[kB] == m_ || InputArrival(r, kA) != kNever);
    }
    int count = 0;
    for (int r = p_ - 1; r >= 0; --r) count += takes_a[r] && FillAndInput(r, kA, true);
    for (int r = 0; r < p_; ++r) count += !takes_a[r] && FillAndInput(r, kB, variant_.fill_before_input);
    return count;
  }
  bool FillAndInput(int r, Chunk chunk, bool fill_short_gap) {
    const int64_t arrival = InputArrival(r, chunk);
    if (arrival == kNever) return false;
    FillGap(r, arrival, fill_short_gap);
    PutInput(r, chunk);
    return true;
  }

  // One forward on each rank that can: of stage b where it is ready. Returns how many.
  int ForwardRound() {
    int count = 0;
    for (int r = 0; r < p_; ++r) {
      for (const Chunk chunk : {kB, kA}) {
        const int64_t arrival = ForwardArrival(r, chunk);
        if (arrival == kNever || !LeavesRoom(r, chunk)) continue;
        while (!Fits(r, chunk) && !ranks_[r].weights.empty()) Weight(r);
        if (!Fits(r, chunk)) break;
        FillGap(r, arrival, variant_.fill_before_forward);
        PutForward(r, chunk);
        ++count;
        break;
      }
    }
    return count;
  }

  const int p_, m_;
  const std::vector<PassCosts>& costs_;
  const std::vector<int64_t>& caps_;
  const Variant variant_;
  std::vector<Rank> ranks_;
  std::vector<int64_t> allowance_;
  std::vector<std::vector<int64_t>> forward_end_, input_end_;  // [stage][micro-batch]
};

}  // namespace

std::vector<Schedule> ZBVFromCosts(const std::vector<PassCosts>& costs, const std::vector<int64_t>& caps,
                                   int micro_batches) {
  std::vector<Schedule> schedules;
  for (int bits = 3; bits >= 0; --bits) {
    const Variant variant{.fill_before_forward = (bits & 2) != 0, .fill_before_input = (bits & 1) != 0};
    std::vector<int64_t> approved;
    while (true) {
      Heuristic heuristic(costs, caps, micro_batches, variant, approved);
      heuristic.Run();
      const std::vector<int64_t> bubbles = heuristic.Bubbles();
      schedules.push_back(heuristic.Take());
      const auto worst = [](const std::vector<int64_t>& values) {
        return *std::max_element(values.begin(), values.end());
      };
      if (!approved.empty() && worst(bubbles) >= worst(approved)) break;
      approved = bubbles;
    }
  }
  return schedules;
}

}  // namespace sluice
