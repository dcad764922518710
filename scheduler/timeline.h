// What happened when on which rank: the same plain value for a simulated and a measured step, so that one can be laid
// over the other. Times are nanoseconds from the start of the step.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "scheduler/action.h"
#include "scheduler/program.h"

namespace sluice {

struct Span {
  PipelineRank rank;
  Action action;  // action.queue is the lane
  int64_t begin_ns = 0;
  int64_t end_ns = 0;
  int64_t bytes = 0;  // of a transfer's message; 0 otherwise
  friend bool operator==(const Span&, const Span&) = default;
};

// Bytes held by a rank's slots from time_ns on.
struct MemorySample {
  PipelineRank rank;
  int64_t time_ns = 0;
  int64_t bytes = 0;
  friend bool operator==(const MemorySample&, const MemorySample&) = default;
};

enum class TimelineSource : uint8_t { kSimulated, kMeasured };

struct Timeline {
  std::string name;  // the schedule's
  TimelineSource source = TimelineSource::kSimulated;
  int ranks = 0;
  int stages = 0;
  int micro_batches = 0;
  std::vector<Queue> queues;          // Action::queue indexes it
  std::vector<Span> spans;            // any order
  std::vector<MemorySample> samples;  // per rank ascending in time
};

struct RankMetrics {
  int64_t busy_ns = 0;  // sum of F, B, I, W spans
  int64_t first_begin_ns = 0;
  int64_t last_end_ns = 0;  // of F, B, I, W
  double bubble = 0;        // 1 - busy / makespan
  int64_t memory_bytes_max = 0;
};

// Two ways to count idle time, never to be mixed up. Makespan: from the first begin to the last end over all ranks, as
// when the step ends with a barrier. Span: the longest over the ranks of (its last end - its first begin), as when
// ranks may shift against one another (zero-bubble schedules with post-validation).
struct TimelineMetrics {
  int64_t makespan_ns = 0;
  int64_t span_ns = 0;
  int64_t busy_ns_max = 0;     // of the busiest rank: the step's floor
  double makespan_bubble = 0;  // (makespan - busy_ns_max) / makespan
  double span_bubble = 0;      // (span - busy_ns_max) / span
  int64_t step_ns = 0;         // end of the last action of any kind
  std::vector<RankMetrics> ranks;
};

TimelineMetrics Measure(const Timeline& timeline);

}  // namespace sluice
