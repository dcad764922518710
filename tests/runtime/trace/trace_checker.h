// The rules of viewers for a trace file, whatever its format: tracks are named, slices nest or are disjoint, every
// arrow has two ends inside their slices and goes forward in time, memory never falls below zero and comes back to
// where it was. Shares nothing with the writers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/timeline.h"

namespace sluice {

using TrackKey = std::pair<int /*process*/, int /*thread*/>;

struct TraceSlice {
  int64_t begin = 0, end = 0;
  std::string name, category;
  std::map<std::string, int64_t> args;
  friend bool operator==(const TraceSlice&, const TraceSlice&) = default;
};

struct TraceArrow {
  TrackKey from, to;
  int64_t start = 0, finish = 0;
};

// What a file says, as its viewer would read it. Times in nanoseconds.
struct ParsedTrace {
  std::map<int, std::string> process_names;
  std::map<TrackKey, std::string> thread_names;
  std::map<TrackKey, std::vector<TraceSlice>> slices;  // in the order of the file
  std::vector<TraceArrow> arrows;
  std::map<int, std::vector<std::pair<int64_t, int64_t>>> memory;  // per process: time, bytes
  int marks = 0;                                                   // begins of steps

  size_t SlicesOf(const std::string& category) const {
    size_t count = 0;
    for (const auto& [track, of_track] : slices) {
      for (const TraceSlice& slice : of_track) count += slice.category == category;
    }
    return count;
  }
};

inline void CheckTrack(const TrackKey& track, const std::string& name, const std::vector<TraceSlice>& slices) {
  int64_t end = std::numeric_limits<int64_t>::min();
  for (const TraceSlice& slice : slices) {
    EXPECT_GE(slice.begin, end) << slice.name << " overlaps on track " << name << " of process " << track.first;
    EXPECT_LE(slice.begin, slice.end) << slice.name;
    end = slice.end;
  }
}

inline void CheckArrow(const ParsedTrace& trace, const TraceArrow& arrow) {
  const auto inside = [&](const TrackKey& track, int64_t time) {
    const auto found = trace.slices.find(track);
    return found != trace.slices.end() &&
           std::any_of(found->second.begin(), found->second.end(),
                       [&](const TraceSlice& slice) { return slice.begin <= time && time <= slice.end; });
  };
  EXPECT_TRUE(inside(arrow.from, arrow.start)) << "an arrow starts in no slice";
  EXPECT_TRUE(inside(arrow.to, arrow.finish)) << "an arrow ends in no slice";
  EXPECT_LE(arrow.start, arrow.finish) << "an arrow goes back in time";
  EXPECT_NE(arrow.from.first, arrow.to.first) << "an arrow stays on its rank";
  EXPECT_THAT(trace.thread_names.at(arrow.from), ::testing::HasSubstr("send"));
  EXPECT_THAT(trace.thread_names.at(arrow.to), ::testing::HasSubstr("receive"));
}

inline void CheckTrace(const ParsedTrace& trace) {
  for (const auto& [track, slices] : trace.slices) {
    ASSERT_TRUE(trace.thread_names.count(track)) << "track without a name";
    EXPECT_TRUE(trace.process_names.count(track.first)) << "process without a name";
    CheckTrack(track, trace.thread_names.at(track), slices);
  }
  for (const TraceArrow& arrow : trace.arrows) CheckArrow(trace, arrow);
  for (const auto& [process, levels] : trace.memory) {
    EXPECT_TRUE(trace.process_names.count(process));
    for (const auto& [time, bytes] : levels) EXPECT_GE(bytes, 0);
    EXPECT_EQ(levels.front().second, levels.back().second)
        << "memory of process " << process << " does not come back to where it was";
  }
}

// Busy time and bubble of every rank add up to the makespan, and the compute slices are those of the timeline.
inline void CheckAddsUp(const ParsedTrace& trace, const Timeline& timeline) {
  const TimelineMetrics metrics = Measure(timeline);
  std::map<int, int64_t> busy;
  for (const auto& [track, slices] : trace.slices) {
    for (const TraceSlice& slice : slices) {
      if (slice.category.size() == 1) busy[track.first - 1] += slice.end - slice.begin;  // F, B, I, W
    }
  }
  EXPECT_EQ(busy.size(), static_cast<size_t>(timeline.ranks));
  for (const auto& [rank, ns] : busy) {
    EXPECT_NEAR(static_cast<double>(ns) + metrics.ranks[rank].bubble * static_cast<double>(metrics.makespan_ns),
                static_cast<double>(metrics.makespan_ns), 1.0);
  }
}

}  // namespace sluice
