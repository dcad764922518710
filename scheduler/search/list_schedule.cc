#include "scheduler/search/list_schedule.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace sluice::search {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

class Player {
 public:
  Player(const Layout& layout, const ListRule& rule)
      : layout_(layout),
        rule_(rule),
        counts_(layout.stages.size()),
        order_(layout.ranks()),
        free_ns_(layout.ranks()),
        bytes_(layout.ranks()),
        choices_(layout.ranks()),
        stale_(layout.ranks(), true) {
    forward_end_.resize(layout.stages.size());
    gradient_end_.resize(layout.stages.size());
    for (int r = 0; r < layout.ranks(); ++r) limits_.push_back(Limit(r));
    steps_left_ = 0;
    for (size_t s = 0; s < layout.stages.size(); ++s) steps_left_ += 3 * layout.micro_batches;
  }

  // Always the rank whose next action starts first: nothing that comes later can change what it had to choose from.
  Order Play() {
    while (steps_left_ > 0) {
      int rank = -1;
      for (int r = 0; r < layout_.ranks(); ++r) {
        if (stale_[r]) choices_[r] = Choose(r);
        stale_[r] = false;
        if (choices_[r].begin < kNever && (rank < 0 || choices_[r].begin < choices_[rank].begin)) rank = r;
      }
      if (rank < 0) return {};
      Take(rank, choices_[rank]);
    }
    return std::move(order_);
  }

 private:
  struct Choice {
    int64_t begin = kNever;
    Step step;
  };

  int64_t Limit(int r) const {
    int64_t micro_batch = 0;
    for (int s : layout_.stages_of_rank[r]) micro_batch += layout_.stages[s].forward_bytes;
    const double ahead = rule_.ahead_base + rule_.ahead_slope * (layout_.ranks() - 1 - r);
    return std::min(layout_.cap_bytes[r], static_cast<int64_t>(std::ceil(ahead * static_cast<double>(micro_batch))));
  }

  // An F may not take the room that micro-batches already here need to get through the rank's later stages.
  bool Fits(int r, int s) const {
    int64_t later = 0;
    for (int t : layout_.stages_of_rank[r]) {
      if (t > s) later = std::max(later, layout_.stages[t].forward_bytes);
    }
    const int64_t needed = bytes_[r] + layout_.stages[s].forward_bytes;
    if (layout_.cap_bytes[r] != kNoCap && needed + later > layout_.cap_bytes[r]) return false;
    return s != layout_.stages_of_rank[r].front() || needed <= limits_[r] || bytes_[r] == 0;
  }

  int64_t ForwardArrival(int s) const {
    if (counts_[s].forwards == layout_.micro_batches) return kNever;
    if (s == 0) return 0;
    const auto& ends = forward_end_[s - 1];
    return counts_[s].forwards < static_cast<int>(ends.size())
               ? ends[counts_[s].forwards] + layout_.stages[s].forward_hop_ns
               : kNever;
  }
  int64_t GradientArrival(int s) const {
    const int k = counts_[s].gradients;
    if (k >= counts_[s].forwards) return kNever;
    if (s + 1 == static_cast<int>(layout_.stages.size())) return forward_end_[s][k];
    const auto& ends = gradient_end_[s + 1];
    return k < static_cast<int>(ends.size()) ? ends[k] + layout_.stages[s].backward_hop_ns : kNever;
  }

  // The earliest of the rank's F (of all its stages), the one preferred first when they start together.
  Choice BestForward(int r) const {
    Choice best;
    for (int s : layout_.stages_of_rank[r]) {
      if (!Fits(r, s)) continue;
      const int64_t arrival = ForwardArrival(s);
      if (arrival == kNever) continue;
      const int64_t begin = std::max(arrival, free_ns_[r]);
      if (begin < best.begin || (begin == best.begin && rule_.deep_first))
        best = {begin, {static_cast<uint16_t>(s), ActionKind::kForward}};
    }
    return best;
  }
  Choice BestGradient(int r) const {
    Choice best;
    for (int s : layout_.stages_of_rank[r]) {
      const int64_t arrival = GradientArrival(s);
      if (arrival == kNever || !GradientFits(r, s)) continue;
      const int64_t begin = std::max(arrival, free_ns_[r]);
      if (begin >= best.begin) continue;
      const bool fused =
          rule_.fused && layout_.stages[s].fused_is_cheaper() && Allowed(counts_[s], ActionKind::kBackward);
      best = {begin, {static_cast<uint16_t>(s), fused ? ActionKind::kBackward : ActionKind::kInputGradient}};
    }
    return best;
  }
  bool GradientFits(int r, int s) const {
    const int64_t more = BytesDelta(layout_.stages[s], ActionKind::kInputGradient);
    return more <= 0 || layout_.cap_bytes[r] == kNoCap || bytes_[r] + more <= layout_.cap_bytes[r];
  }
  // The W that has waited for longest, by how many wait.
  Choice BestWeight(int r) const {
    Choice best;
    int most = 0;
    for (int s : layout_.stages_of_rank[r]) {
      const int waiting = counts_[s].gradients - counts_[s].weights;
      if (waiting > most) best = {free_ns_[r], {static_cast<uint16_t>(s), ActionKind::kWeightGradient}};
      most = std::max(most, waiting);
    }
    return best;
  }

  Choice Choose(int r) const {
    const Choice forward = BestForward(r), gradient = BestGradient(r), weight = BestWeight(r);
    const Choice& preferred = rule_.forward_first ? forward : gradient;
    const Choice& other = rule_.forward_first ? gradient : forward;
    const Choice& pass = preferred.begin <= other.begin ? preferred : other;
    if (weight.begin == kNever || pass.begin <= free_ns_[r]) return pass.begin == kNever ? weight : pass;
    const auto needed = static_cast<double>(layout_.stages[weight.step.stage].weight_ns) * (1 - rule_.weight_overhang);
    if (pass.begin == kNever || static_cast<double>(pass.begin - free_ns_[r]) >= needed) return weight;
    return pass;
  }

  void Take(int r, const Choice& choice) {
    const int s = choice.step.stage;
    const LayoutStage& stage = layout_.stages[s];
    const ActionKind kind = choice.step.kind;
    const int64_t duration = kind == ActionKind::kForward         ? stage.forward_ns
                             : kind == ActionKind::kInputGradient ? stage.input_ns
                             : kind == ActionKind::kBackward      ? stage.backward_ns
                                                                  : stage.weight_ns;
    free_ns_[r] = choice.begin + duration;
    bytes_[r] += BytesDelta(stage, kind);
    Count(kind, counts_[s]);
    order_[r].push_back(choice.step);
    steps_left_ -= kind == ActionKind::kBackward ? 2 : 1;
    stale_[r] = true;
    if (kind == ActionKind::kWeightGradient) return;
    (kind == ActionKind::kForward ? forward_end_ : gradient_end_)[s].push_back(free_ns_[r]);
    const int neighbour = s + (kind == ActionKind::kForward ? 1 : -1);
    if (neighbour >= 0 && neighbour < static_cast<int>(layout_.stages.size()))
      stale_[layout_.stages[neighbour].rank] = true;
  }

  const Layout& layout_;
  const ListRule& rule_;
  std::vector<StageCounts> counts_;
  Order order_;
  std::vector<std::vector<int64_t>> forward_end_, gradient_end_;  // per stage, by micro-batch
  std::vector<int64_t> free_ns_, bytes_, limits_;                 // per rank
  std::vector<Choice> choices_;                                   // per rank, unless stale_
  std::vector<char> stale_;
  int64_t steps_left_ = 0;
};

}  // namespace

Order ListSchedule(const Layout& layout, const ListRule& rule) { return Player(layout, rule).Play(); }

std::vector<ListRule> ListRules(const Layout& layout) {
  std::vector<ListRule> rules;
  const bool several = layout.stages.size() > layout.stages_of_rank.size();
  bool fused = false;
  for (const LayoutStage& stage : layout.stages) fused |= stage.fused_is_cheaper();
  for (double slope : {2.0, 1.0, 1.5, 3.0, 0.0}) {
    for (double base : {1.0, 2.0, 4.0, 1.5, static_cast<double>(layout.ranks()), 1e6}) {
      for (double overhang : {0.5, 0.0, 1.0, 0.8}) {
        for (int flags = 0; flags < (fused ? 8 : 4); ++flags) {
          if ((flags & 2) != 0 && !several) continue;
          rules.push_back({.ahead_base = base,
                           .ahead_slope = slope,
                           .forward_first = (flags & 1) != 0,
                           .deep_first = (flags & 2) == 0,
                           .weight_overhang = overhang,
                           .fused = (flags & 4) != 0});
        }
      }
    }
  }
  return rules;
}

}  // namespace sluice::search
