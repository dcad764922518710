#include "runtime/trace/perfetto_trace.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/trace/file_writer.h"
#include "runtime/trace/protobuf_writer.h"
#include "runtime/trace/trace_format.h"
#include "runtime/trace/trace_layout.h"

namespace sluice {
namespace {

// Field numbers of Perfetto's protos/perfetto/trace.
constexpr int kTracePacket = 1;
namespace packet {
constexpr int kTimestamp = 8, kSequenceId = 10, kTrackEvent = 11, kTrackDescriptor = 60;
}
namespace descriptor {
constexpr int kUuid = 1, kName = 2, kProcess = 3, kThread = 4, kParent = 5, kCounter = 8, kChildOrdering = 11,
              kRank = 12;
constexpr int kPid = 1, kTid = 2, kThreadName = 5, kProcessName = 6;  // of process and thread
constexpr int kUnit = 3;                                              // of counter
constexpr int kUnitBytes = 3, kOrderExplicit = 3;
}  // namespace descriptor
namespace event {
constexpr int kAnnotations = 4, kType = 9, kTrack = 11, kCategory = 22, kName = 23, kCounterValue = 30;
constexpr int kFlow = 47, kTerminatingFlow = 48;
constexpr int kAnnotationName = 10, kAnnotationInt = 4;  // of annotations
enum Type { kBegin = 1, kEnd = 2, kInstant = 3, kCounter = 4 };
}  // namespace event

// Unique ids of tracks, apart by their upper halves.
constexpr uint64_t kThreadTracks = uint64_t{1} << 32, kMemoryTracks = uint64_t{2} << 32, kStepTrack = uint64_t{3} << 32;

int Process(PipelineRank rank) { return rank.value() + trace_format::kFirstProcess; }

// One packet of a step in the order in which they are written: ends before the begins at the same time, and receives
// behind the sends, so that a message's flow comes out of its send even when it takes no time.
struct Entry {
  enum Phase : uint8_t { kSample, kEnd, kBegin, kReceiveEnd, kReceiveBegin };
  int64_t time_ns = 0;
  Phase phase = kBegin;
  bool ends = false;     // of a span without duration the end follows its begin
  int32_t position = 0;  // in TraceLayout::order, or of the sample
};

std::vector<Entry> Entries(const Timeline& timeline, const TraceLayout& layout) {
  std::vector<Entry> entries;
  entries.reserve(2 * timeline.spans.size() + timeline.samples.size());
  for (int32_t k = 0; k < static_cast<int32_t>(layout.order.size()); ++k) {
    const Span& span = timeline.spans[layout.order[k]];
    const bool receive = IsRecv(span.action.kind), instant = span.begin_ns == span.end_ns;
    const Entry::Phase begin = receive ? Entry::kReceiveBegin : Entry::kBegin;
    const Entry::Phase end = instant ? begin : receive ? Entry::kReceiveEnd : Entry::kEnd;
    entries.push_back({span.begin_ns, begin, false, k});
    entries.push_back({span.end_ns, end, true, k});
  }
  for (int32_t k = 0; k < static_cast<int32_t>(timeline.samples.size()); ++k) {
    entries.push_back({timeline.samples[k].time_ns, Entry::kSample, false, k});
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tuple(a.time_ns, a.phase, a.position, a.ends) < std::tuple(b.time_ns, b.phase, b.position, b.ends);
  });
  return entries;
}

class PerfettoTraceWriter {
 public:
  explicit PerfettoTraceWriter(FileWriter& file) : file_(file), out_(file.buffer()) {
    Describe([&] {
      out_.Varint(descriptor::kUuid, kStepTrack);
      out_.Text(descriptor::kName, "steps");
    });
  }

  void Add(const TraceStep& step) {
    const TraceLayout layout = tracks_.Lay(step);
    DescribeProcesses(step.timeline);
    DescribeTracks();
    WriteMark(step);
    for (const Entry& entry : Entries(step.timeline, layout)) {
      if (entry.phase == Entry::kSample) {
        WriteSample(step, step.timeline.samples[entry.position]);
      } else if (entry.ends) {
        WriteEnd(step, layout, layout.order[entry.position]);
      } else {
        WriteBegin(step, layout, layout.order[entry.position]);
      }
    }
    flows_ += static_cast<int64_t>(step.timeline.spans.size());
  }

 private:
  template <class Fill>
  void Packet(Fill fill) {
    file_.FlushIfFull();
    out_.Message(kTracePacket, [&] {
      fill();
      out_.Varint(packet::kSequenceId, 1);
    });
  }
  template <class Fill>
  void Describe(Fill fill) {
    Packet([&] { out_.Message(packet::kTrackDescriptor, fill); });
  }
  template <class Fill>
  void Event(const TraceStep& step, int64_t time_ns, event::Type type, uint64_t track, Fill fill) {
    Packet([&] {
      out_.Varint(packet::kTimestamp, static_cast<uint64_t>(step.begin_ns + time_ns));
      out_.Message(packet::kTrackEvent, [&] {
        out_.Varint(event::kType, type);
        out_.Varint(event::kTrack, track);
        fill();
      });
    });
  }

  void DescribeProcesses(const Timeline& timeline) {
    if (processes_ >= timeline.ranks) return;
    const std::vector<std::string> names = ProcessNames(timeline);
    for (; processes_ < timeline.ranks; ++processes_) {
      const auto pid = static_cast<uint64_t>(Process(PipelineRank(processes_)));
      Describe([&] {
        out_.Varint(descriptor::kUuid, pid);
        out_.Message(descriptor::kProcess, [&] {
          out_.Varint(descriptor::kPid, pid);
          out_.Text(descriptor::kProcessName, names[processes_]);
        });
        out_.Varint(descriptor::kChildOrdering, descriptor::kOrderExplicit);
        out_.Varint(descriptor::kRank, static_cast<uint64_t>(processes_));
      });
      Describe([&] {
        out_.Varint(descriptor::kUuid, kMemoryTracks + pid);
        out_.Varint(descriptor::kParent, pid);
        out_.Text(descriptor::kName, trace_format::kMemoryCounter);
        out_.Message(descriptor::kCounter, [&] { out_.Varint(descriptor::kUnit, descriptor::kUnitBytes); });
      });
    }
  }

  void DescribeTracks() {
    for (; tracks_described_ < tracks_.tracks().size(); ++tracks_described_) {
      const TraceTrack& track = tracks_.tracks()[tracks_described_];
      Describe([&] {
        out_.Varint(descriptor::kUuid, kThreadTracks + static_cast<uint64_t>(track.id));
        out_.Message(descriptor::kThread, [&] {
          out_.Varint(descriptor::kPid, static_cast<uint64_t>(Process(track.rank)));
          out_.Varint(descriptor::kTid, static_cast<uint64_t>(track.id));
          out_.Text(descriptor::kThreadName, track.name);
        });
        out_.Varint(descriptor::kRank, static_cast<uint64_t>(track.order));
      });
    }
  }

  void WriteMark(const TraceStep& step) {
    Event(step, 0, event::kInstant, kStepTrack, [&] {
      out_.Text(event::kCategory, trace_format::kStepCategory);
      const bool measured = step.timeline.source == TimelineSource::kMeasured;
      out_.Text(event::kName, absl::StrCat("step ", step.step, ": ", step.timeline.name, ", ",
                                           measured ? trace_format::kMeasured : trace_format::kSimulated));
    });
  }

  void WriteBegin(const TraceStep& step, const TraceLayout& layout, int32_t i) {
    const Span& span = step.timeline.spans[i];
    const Action& a = span.action;
    Event(step, span.begin_ns, event::kBegin, kThreadTracks + static_cast<uint64_t>(layout.tracks[i]), [&] {
      out_.Text(event::kCategory, ActionKindName(a.kind));
      out_.Text(event::kName, ToString(a));
      if (a.stage.valid()) Annotate("stage", a.stage.value());
      if (a.micro_batch.valid()) Annotate("micro_batch", a.micro_batch.value());
      if (a.copy != 0) Annotate("copy", a.copy);
      if (a.peer.valid()) Annotate("peer", a.peer.value());
      if (span.bytes != 0) Annotate("bytes", span.bytes);
      if (layout.partners[i] >= 0 && IsSend(a.kind)) out_.Fixed64(event::kFlow, FlowOf(i));
    });
  }

  // A flow arrives at the end of its receive: the receive may have been posted before the send began.
  void WriteEnd(const TraceStep& step, const TraceLayout& layout, int32_t i) {
    const Span& span = step.timeline.spans[i];
    Event(step, span.end_ns, event::kEnd, kThreadTracks + static_cast<uint64_t>(layout.tracks[i]), [&] {
      if (layout.partners[i] < 0 || !IsRecv(span.action.kind)) return;
      out_.Fixed64(event::kTerminatingFlow, FlowOf(layout.partners[i]));
    });
  }

  void WriteSample(const TraceStep& step, const MemorySample& sample) {
    Event(step, sample.time_ns, event::kCounter, kMemoryTracks + static_cast<uint64_t>(Process(sample.rank)),
          [&] { out_.Varint(event::kCounterValue, static_cast<uint64_t>(sample.bytes)); });
  }

  void Annotate(absl::string_view name, int64_t value) {
    out_.Message(event::kAnnotations, [&] {
      out_.Text(event::kAnnotationName, name);
      out_.Varint(event::kAnnotationInt, static_cast<uint64_t>(value));
    });
  }

  // By the send's index, after those of the steps before.
  uint64_t FlowOf(int32_t send) const { return static_cast<uint64_t>(flows_ + send + 1); }

  FileWriter& file_;
  ProtobufWriter out_;
  TraceTracks tracks_;
  int processes_ = 0;  // described so far
  size_t tracks_described_ = 0;
  int64_t flows_ = 0;  // ids given to steps before
};

}  // namespace

absl::Status WritePerfettoTrace(const std::string& path, const std::vector<TraceStep>& steps) {
  for (const TraceStep& step : steps) RETURN_IF_ERROR(CheckTimeline(step.timeline));
  ASSIGN_OR_RETURN(const std::unique_ptr<FileWriter> file, FileWriter::Create(path));
  PerfettoTraceWriter writer(*file);
  for (const TraceStep& step : steps) {
    writer.Add(step);
    RETURN_IF_ERROR(file->status());
  }
  return file->Finish();
}

}  // namespace sluice
