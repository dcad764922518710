#include "scheduler/timeline.h"

#include <algorithm>
#include <limits>

namespace sluice {

TimelineMetrics Measure(const Timeline& timeline) {
  constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  TimelineMetrics metrics;
  metrics.ranks.assign(timeline.ranks, {.first_begin_ns = kNever});
  for (const Span& span : timeline.spans) {
    metrics.step_ns = std::max(metrics.step_ns, span.end_ns);
    if (!IsCompute(span.action.kind)) continue;
    RankMetrics& rank = metrics.ranks[span.rank.index()];
    rank.busy_ns += span.end_ns - span.begin_ns;
    rank.first_begin_ns = std::min(rank.first_begin_ns, span.begin_ns);
    rank.last_end_ns = std::max(rank.last_end_ns, span.end_ns);
  }
  for (const MemorySample& sample : timeline.samples) {
    int64_t& most = metrics.ranks[sample.rank.index()].memory_bytes_max;
    most = std::max(most, sample.bytes);
  }
  int64_t begin = kNever, end = 0;
  for (RankMetrics& rank : metrics.ranks) {
    if (rank.first_begin_ns == kNever) rank.first_begin_ns = 0;
    if (rank.last_end_ns == 0) continue;
    begin = std::min(begin, rank.first_begin_ns);
    end = std::max(end, rank.last_end_ns);
    metrics.span_ns = std::max(metrics.span_ns, rank.last_end_ns - rank.first_begin_ns);
    metrics.busy_ns_max = std::max(metrics.busy_ns_max, rank.busy_ns);
  }
  if (end == 0) return metrics;
  const auto idle_share = [](int64_t busy, int64_t total) {
    return total == 0 ? 0.0 : static_cast<double>(total - busy) / static_cast<double>(total);
  };
  metrics.makespan_ns = end - begin;
  metrics.makespan_bubble = idle_share(metrics.busy_ns_max, metrics.makespan_ns);
  metrics.span_bubble = idle_share(metrics.busy_ns_max, metrics.span_ns);
  for (RankMetrics& rank : metrics.ranks) rank.bubble = idle_share(rank.busy_ns, metrics.makespan_ns);
  return metrics;
}

}  // namespace sluice
