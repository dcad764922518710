// Reads a Perfetto trace as its viewer does, and checks what is particular to that format on the way.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/runtime/trace/perfetto.pb.h"
#include "tests/runtime/trace/trace_checker.h"

namespace sluice {

class PerfettoParser {
 public:
  ParsedTrace Parse(const std::string& bytes) {
    perfetto::Trace file;
    EXPECT_TRUE(file.ParseFromString(bytes)) << "no protobuf";
    for (const perfetto::Packet& packet : file.packet()) {
      EXPECT_NE(packet.trusted_packet_sequence_id(), 0u) << "every packet belongs to a sequence";
      EXPECT_TRUE(packet.unknown_fields().empty()) << "a field that no viewer knows";
      if (packet.has_track_descriptor()) TakeTrack(packet.track_descriptor());
      if (packet.has_track_event()) TakeEvent(static_cast<int64_t>(packet.timestamp()), packet.track_event());
    }
    for (const auto& [uuid, open] : open_) EXPECT_TRUE(open.empty()) << "a slice of track " << uuid << " has no end";
    EXPECT_TRUE(flows_.empty()) << flows_.size() << " flows without an end";
    return std::move(trace_);
  }

 private:
  void TakeTrack(const perfetto::TrackDescriptor& track) {
    EXPECT_TRUE(uuids_.insert(track.uuid()).second) << "track " << track.uuid() << " described twice";
    if (track.has_process()) {
      processes_[track.uuid()] = track.process().pid();
      EXPECT_TRUE(trace_.process_names.emplace(track.process().pid(), track.process().process_name()).second);
    } else if (track.has_thread()) {
      EXPECT_FALSE(track.has_parent_uuid()) << "a thread's track is grouped by its process";
      const TrackKey key(track.thread().pid(), track.thread().tid());
      threads_[track.uuid()] = key;
      EXPECT_TRUE(trace_.thread_names.emplace(key, track.thread().thread_name()).second) << "a thread twice";
    } else if (track.has_counter()) {
      EXPECT_EQ(track.counter().unit(), perfetto::Counter::SIZE_BYTES);
      EXPECT_EQ(track.name(), "memory");
      counters_[track.uuid()] = processes_.at(track.parent_uuid());
    }
  }

  void TakeEvent(int64_t time, const perfetto::TrackEvent& event) {
    EXPECT_TRUE(uuids_.count(event.track_uuid())) << "an event before its track's description";
    if (event.type() == perfetto::TrackEvent::INSTANT) {
      ++trace_.marks;
      last_ = time;
    }
    EXPECT_GE(time, last_) << "events of a step stand in order of time";
    last_ = time;
    if (event.type() == perfetto::TrackEvent::SLICE_BEGIN) TakeBegin(time, event);
    if (event.type() == perfetto::TrackEvent::SLICE_END) TakeEnd(time, event);
    if (event.type() == perfetto::TrackEvent::COUNTER) {
      trace_.memory[counters_.at(event.track_uuid())].emplace_back(time, event.counter_value());
    }
  }

  void TakeBegin(int64_t time, const perfetto::TrackEvent& event) {
    const TrackKey track = threads_.at(event.track_uuid());
    TraceSlice slice{.begin = time, .end = -1, .name = event.name(), .category = event.categories(0)};
    for (const perfetto::Annotation& fact : event.debug_annotations()) slice.args[fact.name()] = fact.int_value();
    std::vector<TraceSlice>& slices = trace_.slices[track];
    open_[event.track_uuid()].push_back(slices.size());
    slices.push_back(std::move(slice));
    for (const uint64_t flow : event.flow_ids()) {
      EXPECT_TRUE(flows_.emplace(flow, TraceArrow{.from = track, .start = time}).second) << "flow " << flow << " twice";
    }
    EXPECT_EQ(event.terminating_flow_ids_size(), 0);
  }

  void TakeEnd(int64_t time, const perfetto::TrackEvent& event) {
    const TrackKey track = threads_.at(event.track_uuid());
    ASSERT_FALSE(open_[event.track_uuid()].empty()) << "an end without a begin";
    trace_.slices[track][open_[event.track_uuid()].back()].end = time;
    open_[event.track_uuid()].pop_back();
    for (const uint64_t flow : event.terminating_flow_ids()) {
      const auto start = flows_.find(flow);
      ASSERT_TRUE(start != flows_.end()) << "flow " << flow << " ends before it starts";
      start->second.to = track;
      start->second.finish = time;
      trace_.arrows.push_back(start->second);
      flows_.erase(start);
    }
  }

  ParsedTrace trace_;
  int64_t last_ = 0;
  std::set<uint64_t> uuids_;
  std::map<uint64_t, int> processes_, counters_;
  std::map<uint64_t, TrackKey> threads_;
  std::map<uint64_t, std::vector<size_t>> open_;  // per track, slices that have not ended
  std::map<uint64_t, TraceArrow> flows_;          // that have not ended
};

}  // namespace sluice
