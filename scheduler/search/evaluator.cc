#include "scheduler/search/evaluator.h"

#include <algorithm>

namespace sluice::search {
namespace {

constexpr int64_t kNever = -1;

}  // namespace

Evaluator::Evaluator(const Layout& layout)
    : layout_(layout),
      micro_batches_(layout.micro_batches),
      stages_(static_cast<int>(layout.stages.size())),
      begins_(layout.ranks()) {}

bool Evaluator::Run(const Order& order) {
  forward_end_.assign(stages_ * micro_batches_, kNever);
  gradient_end_.assign(stages_ * micro_batches_, kNever);
  counts_.assign(stages_, {});
  next_.assign(order.size(), 0);
  free_ns_.assign(order.size(), 0);
  waiting_.assign(order.size(), true);
  work_.clear();
  for (int r = layout_.ranks() - 1; r >= 0; --r) {
    work_.push_back(r);
    begins_[r].resize(order[r].size());
  }
  while (!work_.empty()) {
    const int r = work_.back();
    work_.pop_back();
    waiting_[r] = false;
    Advance(order, r);
  }
  for (size_t r = 0; r < order.size(); ++r) {
    if (next_[r] < order[r].size()) return false;
  }
  return true;
}

void Evaluator::Advance(const Order& order, int rank) {
  const RankOrder& steps = order[rank];
  int64_t free = free_ns_[rank];
  size_t k = next_[rank];
  for (; k < steps.size(); ++k) {
    const Step step = steps[k];
    const LayoutStage& stage = layout_.stages[step.stage];
    StageCounts& counts = counts_[step.stage];
    if (step.kind == ActionKind::kWeightGradient) {
      begins_[rank][k] = free;
      free += stage.weight_ns;
      ++counts.weights;
      continue;
    }
    const bool forward = step.kind == ActionKind::kForward;
    const int micro_batch = forward ? counts.forwards : counts.gradients;
    const int64_t ready = Ready(step, micro_batch);
    if (ready == kNever) break;
    begins_[rank][k] = std::max(free, ready);
    free = begins_[rank][k] + (forward                                   ? stage.forward_ns
                               : step.kind == ActionKind::kInputGradient ? stage.input_ns
                                                                         : stage.backward_ns);
    Count(step.kind, counts);
    Finish(step, micro_batch, free);
  }
  next_[rank] = k;
  free_ns_[rank] = free;
}

int64_t Evaluator::Ready(Step step, int micro_batch) const {
  const int s = step.stage;
  const LayoutStage& stage = layout_.stages[s];
  if (step.kind == ActionKind::kForward) {
    if (s == 0) return 0;
    const int64_t end = forward_end_[Cell(s - 1, micro_batch)];
    return end == kNever ? kNever : end + stage.forward_hop_ns;
  }
  if (s == stages_ - 1) return forward_end_[Cell(s, micro_batch)];
  const int64_t end = gradient_end_[Cell(s + 1, micro_batch)];
  return end == kNever ? kNever : end + stage.backward_hop_ns;
}

void Evaluator::Finish(Step step, int micro_batch, int64_t end) {
  const bool forward = step.kind == ActionKind::kForward;
  (forward ? forward_end_ : gradient_end_)[Cell(step.stage, micro_batch)] = end;
  const int neighbour = step.stage + (forward ? 1 : -1);
  if (neighbour < 0 || neighbour >= stages_) return;
  const int rank = layout_.stages[neighbour].rank;
  if (rank != layout_.stages[step.stage].rank && !waiting_[rank]) {
    waiting_[rank] = true;
    work_.push_back(rank);
  }
}

Times Evaluator::times() const {
  Times times;
  for (size_t r = 0; r < free_ns_.size(); ++r) {
    times.makespan_ns = std::max(times.makespan_ns, free_ns_[r]);
    times.span_ns = std::max(times.span_ns, free_ns_[r] - layout_.begin_ns[r]);
  }
  return times;
}

int64_t Evaluator::objective_ns() const { return times().Of(layout_.objective); }

int64_t Evaluator::rank_length_ns(int rank) const { return free_ns_[rank] - layout_.origin_ns(rank); }

}  // namespace sluice::search
