#include "runtime/trace/chrome_trace.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "nlohmann/json.hpp"
#include "runtime/trace/file_writer.h"
#include "runtime/trace/trace_format.h"

namespace sluice {
namespace {

enum class TrackClass : uint8_t { kCompute, kSend, kReceive, kCollective };
constexpr const char* kTrackNames[] = {"compute", "send", "receive", "collectives"};

TrackClass TrackClassOf(ActionKind kind) {
  if (IsSend(kind)) return TrackClass::kSend;
  if (IsRecv(kind)) return TrackClass::kReceive;
  if (IsCompute(kind) || kind == ActionKind::kOptimizerStep || kind == ActionKind::kNorm ||
      kind == ActionKind::kPostValidation) {
    return TrackClass::kCompute;
  }
  return TrackClass::kCollective;
}

// A message between two ranks, the same for both of its ends.
using MessageKey = std::tuple<int /*from*/, int /*to*/, int /*kind*/, int /*copy*/, int /*stage*/, int /*micro*/>;

MessageKey MessageOf(const Span& span, int stages) {
  const Action& a = span.action;
  const bool forward = a.kind == ActionKind::kSendForward || a.kind == ActionKind::kRecvForward;
  // What a wrong guess has made useless comes a second time.
  const int kind = (IsStageTransfer(a.kind) ? (forward ? 1 : 0) : 2) + (a.flags & kDiscarded ? 3 : 0);
  if (IsSend(a.kind)) {
    return {span.rank.value(), a.peer.value(), kind, a.copy, a.stage.value(), a.micro_batch.value()};
  }
  const int sender = a.stage.valid() ? (a.stage.value() + (forward ? stages - 1 : 1)) % std::max(stages, 1) : -1;
  return {a.peer.value(), span.rank.value(), kind, a.copy, sender, a.micro_batch.value()};
}

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

absl::Status CheckTimeline(const Timeline& timeline) {
  const auto known = [&](PipelineRank rank) { return rank.valid() && rank.value() < timeline.ranks; };
  for (const Span& span : timeline.spans) {
    if (known(span.rank) && span.begin_ns <= span.end_ns) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "the timeline '", timeline.name, "' of ", timeline.ranks, " ranks has the span ", ToString(span.action),
        " on rank ", span.rank.value(), " from ", span.begin_ns, " to ", span.end_ns, " ns"));
  }
  for (const MemorySample& sample : timeline.samples) {
    if (known(sample.rank)) continue;
    return absl::InvalidArgumentError(absl::StrCat("the timeline '", timeline.name, "' of ", timeline.ranks,
                                                   " ranks has a memory sample of rank ", sample.rank.value()));
  }
  return absl::OkStatus();
}

// In order of time; of what begins at once, receives behind the rest, then the shorter first.
std::vector<int32_t> TimeOrder(const std::vector<Span>& spans) {
  std::vector<int32_t> order(spans.size());
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](int32_t i) {
    return std::tuple(spans[i].begin_ns, IsRecv(spans[i].action.kind), spans[i].end_ns, i);
  };
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return key(a) < key(b); });
  return order;
}

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
    WriteMark(step);
    messages_.clear();
    for (int32_t i : TimeOrder(step.timeline.spans)) WriteSpan(step, step.timeline.spans[i]);
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
  struct Track {
    int id = 0;
    int64_t end_ns = 0;  // of its last span
  };
  struct MessageEnd {
    bool send = false;
    int process = 0, track = 0;
    int64_t begin_ns = 0, end_ns = 0;
  };

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
    std::vector<std::set<int>> stages(timeline.ranks);
    for (const Span& span : timeline.spans) {
      if (IsCompute(span.action.kind)) stages[span.rank.index()].insert(span.action.stage.value());
    }
    for (; processes_ < timeline.ranks; ++processes_) {
      const int process = processes_ + trace_format::kFirstProcess;
      std::string name = absl::StrCat("rank ", processes_);
      if (!stages[processes_].empty())
        absl::StrAppend(&name, " (stages ", absl::StrJoin(stages[processes_], ", "), ")");
      WriteMetadata("process_name", process, 0, "name", name);
      WriteMetadata("process_sort_index", process, 0, "sort_index", processes_);
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

  // A track on which the span overlaps nothing: the first free one of its rank, class and queue.
  int TrackOf(const Timeline& timeline, const Span& span, int64_t begin_ns, int64_t end_ns) {
    const TrackClass track_class = TrackClassOf(span.action.kind);
    const bool by_queue = track_class == TrackClass::kSend || track_class == TrackClass::kReceive;
    const int queue = by_queue ? span.action.queue.value() : -1;
    std::vector<Track>& tracks = tracks_[{span.rank.value(), track_class, queue}];
    for (Track& track : tracks) {
      if (track.end_ns > begin_ns) continue;
      track.end_ns = end_ns;
      return track.id;
    }
    const int id = ++tracks_named_;
    tracks.push_back({id, end_ns});
    std::string name = kTrackNames[static_cast<size_t>(track_class)];
    if (by_queue && span.action.queue.valid() && span.action.queue.index() < timeline.queues.size()) {
      absl::StrAppend(&name, " ", timeline.queues[span.action.queue.index()].name);
    }
    if (tracks.size() > 1) absl::StrAppend(&name, " (", tracks.size(), ")");
    WriteMetadata("thread_name", Process(span.rank), id, "name", name);
    WriteMetadata("thread_sort_index", Process(span.rank), id, "sort_index",
                  (static_cast<int>(track_class) * 1000 + std::max(queue, 0)) * 100 + static_cast<int>(tracks.size()));
    return id;
  }

  void WriteSpan(const TraceStep& step, const Span& span) {
    const int64_t begin_ns = step.begin_ns + span.begin_ns, end_ns = step.begin_ns + span.end_ns;
    const int process = Process(span.rank), track = TrackOf(step.timeline, span, begin_ns, end_ns);
    const Action& a = span.action;
    EventText event = Event();
    event.Raw("{\"ph\":\"X\",\"cat\":\"").Raw(ActionKindName(a.kind)).Raw("\",\"name\":\"");
    WriteName(event, a);
    event.Raw("\",\"pid\":").Int(process).Raw(",\"tid\":").Int(track);
    event.Raw(",\"ts\":").Microseconds(begin_ns).Raw(",\"dur\":").Microseconds(end_ns - begin_ns);
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
    if (IsTransfer(a.kind)) {
      PairMessage(MessageOf(span, step.timeline.stages), {IsSend(a.kind), process, track, begin_ns, end_ns});
    }
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

  // Draws the arrow when the second end of a message comes along.
  void PairMessage(const MessageKey& message, const MessageEnd& end) {
    const auto [entry, first] = messages_.try_emplace(message, end);
    if (first || entry->second.send == end.send) return;
    const MessageEnd& send = end.send ? end : entry->second;
    const MessageEnd& receive = end.send ? entry->second : end;
    WriteArrow(send, receive);
    messages_.erase(entry);
  }

  // Each end of an arrow lies in its slice, strictly inside where the slice is long enough, and not before its begin.
  // There is no arrow to a receive that ended before the send began, as two hosts' clocks may have it.
  void WriteArrow(const MessageEnd& send, const MessageEnd& receive) {
    if (receive.end_ns < send.begin_ns) return;
    const int64_t finish_ns = std::max({receive.begin_ns, receive.end_ns - 1, send.begin_ns});
    const int64_t start_ns = std::min({send.begin_ns + 1, send.end_ns, finish_ns});
    ++arrows_;
    WriteArrowEnd("{\"ph\":\"s\",\"id\":", send, start_ns);
    WriteArrowEnd("{\"ph\":\"f\",\"bp\":\"e\",\"id\":", receive, finish_ns);
  }

  void WriteArrowEnd(absl::string_view opening, const MessageEnd& end, int64_t time_ns) {
    Event()
        .Raw(opening)
        .Int(arrows_)
        .Raw(",\"cat\":\"transfer\",\"name\":\"message\",\"pid\":")
        .Int(end.process)
        .Raw(",\"tid\":")
        .Int(end.track)
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
  int processes_ = 0;     // named so far
  int tracks_named_ = 0;  // track ids are unique over all ranks
  int64_t arrows_ = 0;
  absl::flat_hash_map<std::tuple<int, TrackClass, int>, std::vector<Track>> tracks_;
  absl::flat_hash_map<MessageKey, MessageEnd> messages_;  // whose other end has not come yet
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
