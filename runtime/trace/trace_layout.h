// What the trace formats share: the order in which a step's spans are written, the track on which each of them overlaps
// nothing, and which send belongs to which receive.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "runtime/trace/trace_step.h"

namespace sluice {

enum class TrackClass : uint8_t { kCompute, kSend, kReceive, kCollective };

struct TraceTrack {
  int id = 0;  // from 1, unique over all ranks
  PipelineRank rank;
  std::string name;  // "compute", "send up", "receive 1>2 (2)"
  int order = 0;     // among the tracks of its rank
};

// A step's spans by their index in Timeline::spans.
struct TraceLayout {
  std::vector<int32_t> order;     // by time; of what begins at once, receives behind the rest, then the shorter first
  std::vector<int32_t> tracks;    // per span the id of its track
  std::vector<int32_t> partners;  // per span the other end of its arrow, or -1
};

// Errors: INVALID_ARGUMENT if a span or sample names a rank outside the timeline, or a span ends before it begins.
absl::Status CheckTimeline(const Timeline& timeline);

// "rank 3 (stages 3, 11)" for every rank.
std::vector<std::string> ProcessNames(const Timeline& timeline);

// Hands out tracks over all steps of a file.
class TraceTracks {
 public:
  // Spans of one rank, class and queue share a track, and what overlaps all the same goes to a further one. An arrow
  // leads from the begin of a send to the end of its receive; there is none where two hosts' clocks have it that the
  // receive ended before the send began. REQUIRES: CheckTimeline is OK.
  TraceLayout Lay(const TraceStep& step);

  // All tracks so far, by id - 1.
  const std::vector<TraceTrack>& tracks() const { return tracks_; }

 private:
  struct Lane {
    int id = 0;
    int64_t end_ns = 0;  // of its last span
  };

  int TrackOf(const TraceStep& step, const Span& span);

  std::vector<TraceTrack> tracks_;
  absl::flat_hash_map<std::tuple<int /*rank*/, TrackClass, int /*queue*/>, std::vector<Lane>> lanes_;
};

}  // namespace sluice
