#include "scheduler/search/exact.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace sluice::search {
namespace {

constexpr size_t kStepsMax = 72;  // beyond that the number of prefixes is hopeless

// What decides a prefix's future: how far each stage has come, when each rank is free, and when the messages that are
// not yet used arrive.
struct Label {
  std::vector<StageCounts> counts;  // per stage
  std::vector<int64_t> bytes;       // per rank
  std::vector<int64_t> free_ns;     // per rank
  std::vector<std::vector<int64_t>> forward_end,
      gradient_end;     // per stage: of micro-batches that its reader hasn't taken
  int32_t parent = -1;  // entry of the trail
};

struct TrailEntry {
  int32_t parent = -1;
  int16_t rank = 0;
  Step step;
};

using Layer = std::map<std::string, std::vector<Label>>;  // by KeyOf

class ExactSearch {
 public:
  ExactSearch(const Layout& layout, int64_t bound, int64_t labels, const std::function<bool()>& out_of_time)
      : layout_(layout),
        bound_(bound),
        labels_left_(labels),
        out_of_time_(out_of_time),
        stages_(static_cast<int>(layout.stages.size())) {}

  ExactResult Run() {
    // A B does two steps' work: layer k holds the prefixes that have done the work of k.
    const size_t work = 3 * layout_.stages.size() * static_cast<size_t>(layout_.micro_batches);
    layers_.resize(work + 3);
    Label start{.counts = std::vector<StageCounts>(stages_),
                .bytes = std::vector<int64_t>(layout_.ranks()),
                .free_ns = layout_.begin_ns,
                .forward_end = std::vector<std::vector<int64_t>>(stages_),
                .gradient_end = std::vector<std::vector<int64_t>>(stages_)};
    layers_[0][KeyOf(start)].push_back(std::move(start));
    for (size_t k = 0; k < work; ++k) {
      for (const auto& [key, labels] : layers_[k]) {
        for (const Label& label : labels) {
          if (!Expand(label, k)) return {};
        }
      }
      Layer().swap(layers_[k]);
    }
    return {.finished = true, .order = BestOf(layers_[work])};
  }

 private:
  static std::string KeyOf(const Label& label) {
    std::string key;
    for (const StageCounts& c : label.counts) {
      for (int count : {c.forwards, c.gradients, c.weights}) key.push_back(static_cast<char>(count));
    }
    return key;
  }

  // False when out of labels or time.
  bool Expand(const Label& label, size_t layer) {
    for (int s = 0; s < stages_; ++s) {
      for (const ActionKind kind :
           {ActionKind::kForward, ActionKind::kInputGradient, ActionKind::kBackward, ActionKind::kWeightGradient}) {
        if (kind == ActionKind::kBackward && !layout_.stages[s].fused_is_cheaper()) continue;
        if (!Possible(label, s, kind)) continue;
        const size_t next = layer + (kind == ActionKind::kBackward ? 2 : 1);
        if (!Keep(After(label, s, kind), layers_[next])) return false;
      }
    }
    return true;
  }

  bool Possible(const Label& label, int s, ActionKind kind) const {
    const LayoutStage& stage = layout_.stages[s];
    const StageCounts& counts = label.counts[s];
    const bool forward = kind == ActionKind::kForward;
    if (!Allowed(counts, kind) || (forward && counts.forwards == layout_.micro_batches)) return false;
    const ActionKind growth = kind == ActionKind::kBackward ? ActionKind::kInputGradient : kind;
    if (label.bytes[stage.rank] + BytesDelta(stage, growth) > layout_.cap_bytes[stage.rank]) return false;
    if (forward) return s == 0 || !label.forward_end[s - 1].empty();
    if (kind == ActionKind::kWeightGradient || s == stages_ - 1) return true;
    return !label.gradient_end[s + 1].empty();
  }

  // The label one step on. Times are moved to the reader's rank: a message is there when it has come and the rank is
  // free.
  Label After(const Label& label, int s, ActionKind kind) {
    const LayoutStage& stage = layout_.stages[s];
    Label next = label;
    int64_t begin = next.free_ns[stage.rank], duration = stage.weight_ns;
    const auto take = [&](std::vector<int64_t>& message) {
      begin = std::max(begin, message.front());
      message.erase(message.begin());
    };
    if (kind == ActionKind::kForward) {
      duration = stage.forward_ns;
      if (s > 0) take(next.forward_end[s - 1]);
    } else if (kind != ActionKind::kWeightGradient) {
      duration = kind == ActionKind::kBackward ? stage.backward_ns : stage.input_ns;
      if (s + 1 < stages_) take(next.gradient_end[s + 1]);
    }
    const int64_t end = begin + duration;
    next.free_ns[stage.rank] = end;
    next.bytes[stage.rank] += BytesDelta(stage, kind);
    Count(kind, next.counts[s]);
    if (kind == ActionKind::kForward && s + 1 < stages_)
      next.forward_end[s].push_back(end + layout_.stages[s + 1].forward_hop_ns);
    if ((kind == ActionKind::kInputGradient || kind == ActionKind::kBackward) && s > 0) {
      next.gradient_end[s].push_back(end + layout_.stages[s - 1].backward_hop_ns);
    }
    next.parent = static_cast<int32_t>(trail_.size());
    trail_.push_back({label.parent, static_cast<int16_t>(stage.rank), {static_cast<uint16_t>(s), kind}});
    for (int k = 0; k < stages_; ++k) {
      if (k + 1 < stages_) MoveToReader(next, next.forward_end[k], k + 1);
      if (k > 0) MoveToReader(next, next.gradient_end[k], k - 1);
    }
    return next;
  }
  void MoveToReader(const Label& label, std::vector<int64_t>& messages, int reader) const {
    const int64_t free = label.free_ns[layout_.stages[reader].rank];
    for (int64_t& time : messages) time = std::max(time, free);
  }

  bool Keep(Label label, Layer& layer) {
    if (!CanBeat(label)) return Drop();
    std::vector<Label>& labels = layer[KeyOf(label)];
    for (const Label& other : labels) {
      if (NoLater(other, label)) return Drop();
    }
    std::erase_if(labels, [&](const Label& other) { return NoLater(label, other); });
    labels.push_back(std::move(label));
    if (--labels_left_ < 0) return false;
    return labels_left_ % 1024 != 0 || !out_of_time_ || !out_of_time_();
  }
  bool Drop() {
    trail_.pop_back();
    return true;
  }

  // Whether the work that is left can end before the bound on every rank.
  bool CanBeat(const Label& label) const {
    for (int r = 0; r < layout_.ranks(); ++r) {
      int64_t end = label.free_ns[r];
      for (int s : layout_.stages_of_rank[r]) {
        const LayoutStage& stage = layout_.stages[s];
        const StageCounts& c = label.counts[s];
        end += (layout_.micro_batches - c.forwards) * stage.forward_ns +
               (layout_.micro_batches - c.gradients) * stage.backward_work_ns() +
               (c.gradients - c.weights) * stage.weight_ns;
      }
      if (end - layout_.origin_ns(r) >= bound_) return false;
    }
    return true;
  }

  static bool NoLater(const Label& a, const Label& b) {
    const auto no_later = [](const std::vector<int64_t>& x, const std::vector<int64_t>& y) {
      return std::equal(x.begin(), x.end(), y.begin(), [](int64_t s, int64_t t) { return s <= t; });
    };
    if (!no_later(a.free_ns, b.free_ns)) return false;
    for (size_t s = 0; s < a.forward_end.size(); ++s) {
      if (!no_later(a.forward_end[s], b.forward_end[s]) || !no_later(a.gradient_end[s], b.gradient_end[s]))
        return false;
    }
    return true;
  }

  std::optional<Order> BestOf(const Layer& layer) const {
    const Label* best = nullptr;
    int64_t shortest = bound_;
    for (const auto& [key, labels] : layer) {
      for (const Label& label : labels) {
        int64_t length = 0;
        for (int r = 0; r < layout_.ranks(); ++r) length = std::max(length, label.free_ns[r] - layout_.origin_ns(r));
        if (length < shortest) best = &label, shortest = length;
      }
    }
    if (best == nullptr) return std::nullopt;
    Order order(layout_.ranks());
    for (int32_t k = best->parent; k >= 0; k = trail_[k].parent) order[trail_[k].rank].push_back(trail_[k].step);
    for (RankOrder& steps : order) std::reverse(steps.begin(), steps.end());
    return order;
  }

  const Layout& layout_;
  const int64_t bound_;
  int64_t labels_left_;
  const std::function<bool()>& out_of_time_;
  const int stages_;
  std::vector<Layer> layers_;
  std::vector<TrailEntry> trail_;
};

}  // namespace

ExactResult SearchExactly(const Layout& layout, int64_t bound_ns, int64_t labels,
                          const std::function<bool()>& out_of_time) {
  if (labels <= 0 || 3 * layout.stages.size() * layout.micro_batches > kStepsMax) return {};
  return ExactSearch(layout, bound_ns, labels, out_of_time).Run();
}

}  // namespace sluice::search
