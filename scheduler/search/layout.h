// A search problem for one cut and one placement, as flat tables: what timing, bounds and the methods read. And orders:
// what they produce, one string of steps per rank.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "scheduler/schedule.h"
#include "scheduler/search.h"

namespace sluice::search {

inline constexpr int64_t kNoCap = std::numeric_limits<int64_t>::max();

struct LayoutStage {
  int rank = 0;
  int64_t forward_ns = 0, input_ns = 0, weight_ns = 0, backward_ns = 0;
  int64_t forward_hop_ns = 0;   // of the activation from stage - 1 to here, 0 on the same rank
  int64_t backward_hop_ns = 0;  // of the gradient from stage + 1 to here
  int64_t forward_bytes = 0, weight_bytes = 0;

  bool fused_is_cheaper() const { return backward_ns < input_ns + weight_ns; }
  // The shortest ways to a micro-batch's gradient, and to all of its backward work.
  int64_t gradient_ns() const { return std::min(input_ns, backward_ns); }
  int64_t backward_work_ns() const { return std::min(input_ns + weight_ns, backward_ns); }
};

// REQUIRES of all that read it: one copy of the model, and each rank's first stage comes before all stages that pass
// through a rank twice (loop, V and wave placements), so that a rank always begins with its first stage's F of
// micro-batch 0, at begin_ns.
struct Layout {
  Placement placement;
  const ModelCut* cut = nullptr;
  int micro_batches = 0;
  Objective objective = Objective::kSpan;
  std::vector<LayoutStage> stages;
  std::vector<std::vector<int>> stages_of_rank;  // ascending
  std::vector<int64_t> cap_bytes;                // per rank, kNoCap if there is none
  std::vector<int64_t> begin_ns;                 // per rank: when its first F can start, in every order

  int ranks() const { return placement.ranks(); }
  // What a rank's end is counted from.
  int64_t origin_ns(int rank) const { return objective == Objective::kSpan ? begin_ns[rank] : 0; }
};

Layout MakeLayout(const SearchProblem& problem, const ModelCut& cut, const Placement& placement);
// Loop, V and wave, as far as the cut has the stages for them.
std::vector<Placement> PlacementsOf(int ranks, int chunks);

// Of one rank under the problem's caps; the sum of forward_bytes of the rank's stages is `micro_batch_bytes`.
int64_t CapBytes(const SearchProblem& problem, int64_t micro_batch_bytes);

// One compute action; its micro-batch is the number of such steps of its stage before it.
struct Step {
  uint16_t stage = 0;
  ActionKind kind = ActionKind::kForward;
  friend bool operator==(Step, Step) = default;
};
using RankOrder = std::vector<Step>;
using Order = std::vector<RankOrder>;  // per rank

// What the step adds to its rank's memory when it starts (F) or ends (I, W); B: as I, then W.
int64_t BytesDelta(const LayoutStage& stage, ActionKind kind);

// How far a stage has come.
struct StageCounts {
  int forwards = 0, gradients = 0, weights = 0;
};
// Whether the step keeps the order of F, I, W within its stage, and ascending weight gradients.
inline bool Allowed(const StageCounts& counts, ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward:
      return true;
    case ActionKind::kInputGradient:
      return counts.gradients < counts.forwards;
    case ActionKind::kBackward:
      return counts.gradients < counts.forwards && counts.weights == counts.gradients;
    default:
      return counts.weights < counts.gradients;
  }
}
void Count(ActionKind kind, StageCounts& counts);

// Most bytes that the rank holds, or kNoCap if the order within a stage is broken somewhere.
int64_t PeakBytes(const Layout& layout, const RankOrder& order);

// A schedule's micro-batches renumbered in ascending order: no action is later and no byte more (search.h). B becomes I
// and W where the two take no longer, or where ascending weight gradients demand it.
Order ToOrder(const Layout& layout, const Schedule& schedule);
Schedule ToSchedule(const Layout& layout, const Order& order);

}  // namespace sluice::search
