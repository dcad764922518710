#include "scheduler/search/lower_bound.h"

#include <algorithm>

namespace sluice::search {
namespace {

// Work that memory can hold: `count` times at most.
struct Item {
  int64_t bytes = 0;
  int64_t work_ns = 0;
  int64_t count = 0;
};

// At least the most work of items that fit under the cap together: the smaller of the fractional knapsack and of as
// many items as the smallest allows.
int64_t WorkHeld(std::vector<Item> items, int64_t cap) {
  int64_t all = 0, smallest = kNoCap;
  for (const Item& item : items) {
    all += item.work_ns * item.count;
    smallest = std::min(smallest, item.bytes);
  }
  if (cap == kNoCap || smallest <= 0) return all;
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.work_ns > b.work_ns; });
  int64_t by_count = 0, count = cap / smallest;
  for (const Item& item : items) {
    const int64_t taken = std::min<int64_t>(count, item.count);
    by_count += taken * item.work_ns;
    count -= taken;
  }
  const auto density = [](const Item& item) {
    return static_cast<double>(item.work_ns) / static_cast<double>(item.bytes);
  };
  std::sort(items.begin(), items.end(), [&](const Item& a, const Item& b) { return density(a) > density(b); });
  double by_bytes = 0, room = static_cast<double>(cap);
  for (const Item& item : items) {
    const double taken = std::min(room, static_cast<double>(item.bytes) * item.count);
    by_bytes += taken * density(item);
    room -= taken;
  }
  return std::min({all, by_count, static_cast<int64_t>(by_bytes) + 1});
}

class RankBound {
 public:
  RankBound(const Layout& layout, int rank)
      : layout_(layout),
        rank_(rank),
        stages_(layout.stages_of_rank[rank]),
        m_(layout.micro_batches),
        cap_(layout.cap_bytes[rank]) {
    for (int s : stages_) work_ns_ += m_ * (stage(s).forward_ns + stage(s).backward_work_ns());
  }

  // Bounds 1 to 3: of the rank's end less its begin.
  int64_t Length() const {
    const int64_t start = StartIdle(), end = EndIdle();
    const bool apart = cap_ / std::max<int64_t>(1, stage(first()).forward_bytes) < m_;
    const int64_t by_work = work_ns_ + (apart ? start + end : std::max(start, end));
    return std::max(by_work, ByResidence(by_work));
  }

  // Bound 4: for each stage t, the end of its rank, into ends[rank].
  void Chains(std::vector<int64_t>& ends) const {
    for (int s : stages_) {
      int64_t way = layout_.begin_ns[rank_] + StartIdle() + WorkBeforeLastGradient(s);
      for (int t = s - 1; t >= 0; --t) {
        way += stage(t).backward_hop_ns;
        int64_t& end = ends[stage(t).rank];
        end = std::max(end, way + stage(t).backward_work_ns());
        way += stage(t).gradient_ns();
      }
    }
  }

 private:
  const LayoutStage& stage(int s) const { return layout_.stages[s]; }
  int first() const { return stages_.front(); }
  int last() const { return stages_.back(); }

  // From the start of F at stage s to the start of I or B at stage t, of the same micro-batch.
  int64_t Way(int s, int t) const {
    const int end = static_cast<int>(layout_.stages.size());
    int64_t way = stage(s).forward_ns;
    for (int k = s + 1; k < end; ++k) way += stage(k).forward_hop_ns + stage(k).forward_ns;
    for (int k = end - 1; k > t; --k) way += stage(k).gradient_ns() + stage(k - 1).backward_hop_ns;
    return way;
  }

  int64_t StartIdle() const {
    std::vector<Item> items;
    for (int s : stages_) items.push_back({stage(s).forward_bytes, stage(s).forward_ns, m_});
    return std::max<int64_t>(0, Way(first(), last()) - WorkHeld(std::move(items), cap_));
  }

  int64_t EndIdle() const {
    std::vector<Item> items = {{stage(first()).forward_bytes, 0, m_}};
    for (int s : stages_) {
      if (s != first()) items[0].work_ns += stage(s).forward_ns;
      items[0].work_ns += std::max(stage(s).backward_ns, stage(s).input_ns + stage(s).weight_ns);
      items.push_back({stage(s).weight_bytes, stage(s).weight_ns, m_});
    }
    const int64_t way = Way(first(), first()) - stage(first()).forward_ns + stage(first()).backward_work_ns();
    return std::max<int64_t>(0, way - WorkHeld(std::move(items), cap_));
  }

  int64_t WorkBeforeLastGradient(int s) const {
    std::vector<Item> waiting;
    int64_t work = 0;
    for (int t : stages_) {
      work += m_ * stage(t).forward_ns;
      if (t < s) continue;
      work += m_ * stage(t).backward_work_ns();
      waiting.push_back({stage(t).weight_bytes, stage(t).weight_ns, m_});
    }
    return work - WorkHeld(std::move(waiting), cap_);
  }

  int64_t ByResidence(int64_t length) const {
    if (cap_ == kNoCap || cap_ <= 0) return 0;
    const auto cap = static_cast<double>(cap_);
    double area = 0;             // byte x ns of one micro-batch
    double fill = 0, drain = 0;  // bytes per ns, at most
    double fill_step = 0, drain_step = 0;
    bool ramps = true;  // memory grows by F only, and each action takes time
    for (int s : stages_) {
      const LayoutStage& a = stage(s);
      const auto bytes = static_cast<double>(a.forward_bytes), weight = static_cast<double>(a.weight_bytes);
      const auto way = static_cast<double>(Way(s, s));
      area += std::min(bytes * (way + static_cast<double>(a.input_ns)) + weight * static_cast<double>(a.weight_ns),
                       bytes * (way + static_cast<double>(a.backward_ns)));
      ramps &= weight <= bytes && a.forward_ns > 0 && a.input_ns > 0 && a.weight_ns > 0 && a.backward_ns > 0;
      if (!ramps) continue;
      fill = std::max(fill, bytes / static_cast<double>(a.forward_ns));
      drain = std::max({drain, (bytes - weight) / static_cast<double>(a.input_ns),
                        weight / static_cast<double>(a.weight_ns), bytes / static_cast<double>(a.backward_ns)});
      fill_step = std::max(fill_step, bytes), drain_step = std::max(drain_step, bytes);
    }
    const double unused =
        ramps && fill > 0 ? Unused(cap - fill_step, fill, cap - drain_step, drain, static_cast<double>(length)) : 0;
    return static_cast<int64_t>((area * m_ + unused) / cap * (1 - 1e-9));
  }

  // Area that memory can't use while it fills and drains at these rates, if there is the time for both.
  static double Unused(double to_fill, double fill, double to_drain, double drain, double length) {
    to_fill = std::max(0.0, to_fill), to_drain = std::max(0.0, to_drain);
    if (to_fill / fill + to_drain / drain > length) return 0;
    return to_fill * to_fill / (2 * fill) + to_drain * to_drain / (2 * drain);
  }

  const Layout& layout_;
  const int rank_;
  const std::vector<int>& stages_;
  const int64_t m_;
  const int64_t cap_;
  int64_t work_ns_ = 0;
};

}  // namespace

Times LowerBound(const Layout& layout) {
  std::vector<int64_t> ends(layout.ranks(), 0);
  for (int r = 0; r < layout.ranks(); ++r) {
    const RankBound bound(layout, r);
    ends[r] = std::max(ends[r], layout.begin_ns[r] + bound.Length());
    bound.Chains(ends);
  }
  Times times;
  for (int r = 0; r < layout.ranks(); ++r) {
    times.makespan_ns = std::max(times.makespan_ns, ends[r]);
    times.span_ns = std::max(times.span_ns, ends[r] - layout.begin_ns[r]);
  }
  return times;
}

Times WorkBound(const Placement& placement, int micro_batches, const Costs& costs) {
  std::vector<int64_t> work(placement.ranks(), 0);
  int64_t way = 0;
  for (int s = 0; s < placement.stages(); ++s) {
    const StageCosts& stage = costs.stages[s];
    way += stage.forward_ns + std::min(stage.input_gradient_ns, stage.backward_ns);
    const int64_t one =
        stage.forward_ns + std::min(stage.input_gradient_ns + stage.weight_gradient_ns, stage.backward_ns);
    for (int copy = 0; copy < placement.copies(); ++copy) {
      work[placement.RankOf(StageId(s), copy).index()] += one * (micro_batches / placement.copies());
    }
  }
  const int64_t bound = std::max(way, *std::max_element(work.begin(), work.end()));
  return {bound, bound};
}

}  // namespace sluice::search
