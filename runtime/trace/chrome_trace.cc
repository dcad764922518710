#include "runtime/trace/chrome_trace.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/status.h"
#include "nlohmann/json.hpp"
#include "runtime/trace/file_writer.h"
#include "runtime/trace/trace_format.h"
#include "runtime/trace/trace_layout.h"

namespace sluice {
namespace {

// Appends the pieces of events to a string, without allocation of its own.
class EventText {
 public:
  explicit EventText(std::string& out) : out_(out) {}
  EventText& Raw(absl::string_view text) {
    out_.append(text.data(), text.size());
    return *this;
  }
  EventText& Int(int64_t value) {
    char digits[24];
    out_.append(digits, std::to_chars(digits, digits + sizeof(digits), value).ptr);
    return *this;
  }
  // Microseconds with all three decimals, so that nothing is rounded and neighbours keep their common border.
  EventText& Microseconds(int64_t ns) {
    if (ns < 0) out_.push_back('-');
    const uint64_t magnitude = ns < 0 ? -static_cast<uint64_t>(ns) : static_cast<uint64_t>(ns);
    Int(static_cast<int64_t>(magnitude / 1000));
    const auto rest = static_cast<int>(magnitude % 1000);
    const char decimals[] = {'.', static_cast<char>('0' + rest / 100), static_cast<char>('0' + rest / 10 % 10),
                             static_cast<char>('0' + rest % 10)};
    out_.append(decimals, sizeof(decimals));
    return *this;
  }
  EventText& Argument(absl::string_view name, int64_t value) {
    Raw(first_argument_ ? "\"" : ",\"").Raw(name).Raw("\":").Int(value);
    first_argument_ = false;
    return *this;
  }

 private:
  std::string& out_;
  bool first_argument_ = true;
};

}  // namespace

class ChromeTraceWriter::Impl {
 public:
  explicit Impl(std::unique_ptr<FileWriter> file) : file_(std::move(file)), text_(file_->buffer()) {
    text_ = "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"producer\":\"sluice\"},\"traceEvents\":[\n";
  }

  absl::Status Add(const TraceStep& step) {
    RETURN_IF_ERROR(first_error_);
    first_error_ = CheckTimeline(step.timeline);
    RETURN_IF_ERROR(first_error_);
    NameProcesses(step.timeline);
    const TraceLayout layout = tracks_.Lay(step);
    NameTracks();
    WriteMark(step);
    WriteSpans(step, layout);
    for (const MemorySample& sample : step.timeline.samples) WriteSample(step, sample);
    return first_error_ = file_->status();
  }

  absl::Status Finish() {
    RETURN_IF_ERROR(first_error_);
    text_.append("\n]}\n");
    first_error_ = file_->Finish();
    return first_error_;
  }

 private:
  EventText Event() {
    file_->FlushIfFull();
    EventText event(text_);
    if (!first_event_) event.Raw(",\n");
    first_event_ = false;
    return event;
  }
  static int Process(PipelineRank rank) { return rank.value() + trace_format::kFirstProcess; }

  void WriteMetadata(absl::string_view kind, int process, int track, absl::string_view argument,
                     const nlohmann::json& value) {
    EventText event = Event();
    event.Raw("{\"ph\":\"M\",\"name\":\"").Raw(kind).Raw("\",\"pid\":").Int(process);
    if (track > 0) event.Raw(",\"tid\":").Int(track);
    event.Raw(",\"args\":{\"").Raw(argument).Raw("\":").Raw(value.dump()).Raw("}}");
  }

  void NameProcesses(const Timeline& timeline) {
    if (processes_ >= timeline.ranks) return;
    const std::vector<std::string> names = ProcessNames(timeline);
    for (; processes_ < timeline.ranks; ++processes_) {
      const int process = processes_ + trace_format::kFirstProcess;
      WriteMetadata("process_name", process, 0, "name", names[processes_]);
      WriteMetadata("process_sort_index", process, 0, "sort_index", processes_);
    }
  }

  void NameTracks() {
    for (; tracks_named_ < tracks_.tracks().size(); ++tracks_named_) {
      const TraceTrack& track = tracks_.tracks()[tracks_named_];
      WriteMetadata("thread_name", Process(track.rank), track.id, "name", track.name);
      WriteMetadata("thread_sort_index", Process(track.rank), track.id, "sort_index", track.order);
    }
  }

  // The mark that opens a step, with what the spans alone don't say.
  void WriteMark(const TraceStep& step) {
    const Timeline& timeline = step.timeline;
    nlohmann::ordered_json args = {
        {"version", trace_format::kVersion},
        {"step", step.step},
        {"begin_ns", step.begin_ns},
        {"schedule", timeline.name},
        {"source", timeline.source == TimelineSource::kMeasured ? trace_format::kMeasured : trace_format::kSimulated},
        {"ranks", timeline.ranks},
        {"stages", timeline.stages},
        {"micro_batches", timeline.micro_batches}};
    args["queues"] = nlohmann::json::array();
    for (const Queue& queue : timeline.queues) {
      args["queues"].push_back(
          {{"kind", trace_format::kQueueKinds[static_cast<size_t>(queue.kind)]}, {"name", queue.name}});
    }
    Event()
        .Raw("{\"ph\":\"i\",\"s\":\"g\",\"cat\":\"")
        .Raw(trace_format::kStepCategory)
        .Raw("\",\"name\":\"step ")
        .Int(step.step)
        .Raw("\",\"pid\":")
        .Int(trace_format::kFirstProcess)
        .Raw(",\"tid\":1,\"ts\":")
        .Microseconds(step.begin_ns)
        .Raw(",\"args\":")
        .Raw(args.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace))
        .Raw("}");
  }

  // An arrow stands behind the later of its two slices.
  void WriteSpans(const TraceStep& step, const TraceLayout& layout) {
    const std::vector<Span>& spans = step.timeline.spans;
    std::vector<bool> written(spans.size());
    for (const int32_t i : layout.order) {
      WriteSpan(step, spans[i], layout.tracks[i]);
      written[i] = true;
      const int32_t other = layout.partners[i];
      if (other < 0 || !written[other]) continue;
      const auto [send, receive] = IsSend(spans[i].action.kind) ? std::pair(i, other) : std::pair(other, i);
      WriteArrow(step, layout, send, receive);
    }
  }

  void WriteSpan(const TraceStep& step, const Span& span, int track) {
    const Action& a = span.action;
    EventText event = Event();
    event.Raw("{\"ph\":\"X\",\"cat\":\"").Raw(ActionKindName(a.kind)).Raw("\",\"name\":\"");
    WriteName(event, a);
    event.Raw("\",\"pid\":").Int(Process(span.rank)).Raw(",\"tid\":").Int(track);
    event.Raw(",\"ts\":").Microseconds(step.begin_ns + span.begin_ns);
    event.Raw(",\"dur\":").Microseconds(span.end_ns - span.begin_ns);
    event.Raw(",\"args\":{");
    if (a.stage.valid()) event.Argument("stage", a.stage.value());
    if (a.micro_batch.valid()) event.Argument("micro_batch", a.micro_batch.value());
    if (a.copy != 0) event.Argument("copy", a.copy);
    if (a.flags != 0) event.Argument("flags", a.flags);
    if (a.peer.valid()) event.Argument("peer", a.peer.value());
    if (a.queue.valid()) event.Argument("queue", a.queue.value());
    if (a.slot >= 0) event.Argument("slot", a.slot);
    if (a.stash >= 0) event.Argument("stash", a.stash);
    if (a.collective >= 0) event.Argument("collective", a.collective);
    if (span.bytes != 0) event.Argument("bytes", span.bytes);
    event.Raw("}}");
  }

  // As ToString(action), without its allocations.
  static void WriteName(EventText& event, const Action& a) {
    if (a.stage.valid()) event.Int(a.stage.value());
    event.Raw(ActionKindName(a.kind));
    if (a.micro_batch.valid()) event.Int(a.micro_batch.value());
    if (a.kind == ActionKind::kCollective) event.Int(a.collective);
    if (a.copy != 0) event.Raw("@").Int(a.copy);
    if (a.flags & kDiscarded) event.Raw("~");
  }

  // Each end of an arrow lies in its slice, strictly inside where the slice is long enough, and not before its begin.
  void WriteArrow(const TraceStep& step, const TraceLayout& layout, int32_t send, int32_t receive) {
    const Span &from = step.timeline.spans[send], &to = step.timeline.spans[receive];
    const int64_t finish_ns = std::max({to.begin_ns, to.end_ns - 1, from.begin_ns});
    const int64_t start_ns = std::min({from.begin_ns + 1, from.end_ns, finish_ns});
    ++arrows_;
    WriteArrowEnd("{\"ph\":\"s\",\"id\":", from.rank, layout.tracks[send], step.begin_ns + start_ns);
    WriteArrowEnd("{\"ph\":\"f\",\"bp\":\"e\",\"id\":", to.rank, layout.tracks[receive], step.begin_ns + finish_ns);
  }

  void WriteArrowEnd(absl::string_view opening, PipelineRank rank, int track, int64_t time_ns) {
    Event()
        .Raw(opening)
        .Int(arrows_)
        .Raw(",\"cat\":\"transfer\",\"name\":\"message\",\"pid\":")
        .Int(Process(rank))
        .Raw(",\"tid\":")
        .Int(track)
        .Raw(",\"ts\":")
        .Microseconds(time_ns)
        .Raw("}");
  }

  void WriteSample(const TraceStep& step, const MemorySample& sample) {
    Event()
        .Raw("{\"ph\":\"C\",\"name\":\"")
        .Raw(trace_format::kMemoryCounter)
        .Raw("\",\"pid\":")
        .Int(Process(sample.rank))
        .Raw(",\"ts\":")
        .Microseconds(step.begin_ns + sample.time_ns)
        .Raw(",\"args\":{\"bytes\":")
        .Int(sample.bytes)
        .Raw("}}");
  }

  std::unique_ptr<FileWriter> file_;
  std::string& text_;
  absl::Status first_error_;
  bool first_event_ = true;
  int processes_ = 0;  // named so far
  size_t tracks_named_ = 0;
  int64_t arrows_ = 0;
  TraceTracks tracks_;
};

ChromeTraceWriter::ChromeTraceWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChromeTraceWriter::~ChromeTraceWriter() = default;

absl::StatusOr<std::unique_ptr<ChromeTraceWriter>> ChromeTraceWriter::Create(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<FileWriter> file, FileWriter::Create(path));
  return std::unique_ptr<ChromeTraceWriter>(new ChromeTraceWriter(std::make_unique<Impl>(std::move(file))));
}

absl::Status ChromeTraceWriter::Add(const TraceStep& step) { return impl_->Add(step); }
absl::Status ChromeTraceWriter::Finish() { return impl_->Finish(); }

absl::Status WriteChromeTrace(const std::string& path, const std::vector<TraceStep>& steps) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ChromeTraceWriter> writer, ChromeTraceWriter::Create(path));
  for (const TraceStep& step : steps) RETURN_IF_ERROR(writer->Add(step));
  return writer->Finish();
}

}  // namespace sluice
