// The reader's half of chrome_trace.h: events are taken one by one while the text is parsed, so that memory holds the
// timelines and not the text.

#include <cerrno>
#include <cmath>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "nlohmann/json.hpp"
#include "runtime/trace/chrome_trace.h"
#include "runtime/trace/file_writer.h"
#include "runtime/trace/trace_format.h"

namespace sluice {
namespace {

using nlohmann::json;

int64_t Nanoseconds(const json& microseconds) { return std::llround(microseconds.get<double>() * 1000); }

// Thrown through the parser by an event that is not as our writer makes it.
struct BadEvent {
  std::string message;
};

class TraceReader {
 public:
  // Called with each whole event; throws BadEvent or json::exception.
  void Take(const json& event) {
    const std::string phase = event.value("ph", "");
    if (phase == "i" && event.value("cat", "") == trace_format::kStepCategory) return TakeMark(event.at("args"));
    if (steps_.empty()) return;  // names of processes; or a foreign file, which never has a mark
    if (phase == "X") TakeSpan(event);
    if (phase == "C" && event.at("name") == trace_format::kMemoryCounter) TakeSample(event);
  }

  std::vector<TraceStep>& steps() { return steps_; }

 private:
  void TakeMark(const json& args) {
    const int version = args.at("version");
    if (version > trace_format::kVersion) {
      throw BadEvent{absl::StrCat("has format version ", version, ", and this program reads up to ",
                                  trace_format::kVersion, ": use the newer program that wrote it")};
    }
    TraceStep& step = steps_.emplace_back();
    step.step = args.at("step");
    step.begin_ns = args.at("begin_ns");
    Timeline& timeline = step.timeline;
    timeline.name = args.at("schedule");
    timeline.source =
        args.at("source") == trace_format::kMeasured ? TimelineSource::kMeasured : TimelineSource::kSimulated;
    timeline.ranks = args.at("ranks");
    timeline.stages = args.at("stages");
    timeline.micro_batches = args.at("micro_batches");
    for (const json& queue : args.at("queues"))
      timeline.queues.push_back({QueueKindOf(queue.at("kind")), queue.at("name")});
    if (timeline.ranks < 0 || timeline.ranks > kRanksMax) {
      throw BadEvent{absl::StrCat("says that step ", step.step, " has ", timeline.ranks, " ranks")};
    }
  }

  static QueueKind QueueKindOf(const std::string& name) {
    for (size_t i = 0; i < std::size(trace_format::kQueueKinds); ++i) {
      if (name == trace_format::kQueueKinds[i]) return static_cast<QueueKind>(i);
    }
    throw BadEvent{absl::StrCat("has a queue of unknown kind '", name, "'")};
  }

  static ActionKind ActionKindOf(const std::string& name) {
    for (int i = 0; i < kActionKinds; ++i) {
      if (name == ActionKindName(static_cast<ActionKind>(i))) return static_cast<ActionKind>(i);
    }
    throw BadEvent{absl::StrCat("has an action of unknown kind '", name, "'")};
  }

  PipelineRank RankOf(const json& event) const {
    const int rank = event.at("pid").get<int>() - trace_format::kFirstProcess;
    if (rank < 0 || rank >= steps_.back().timeline.ranks) {
      throw BadEvent{absl::StrCat("has an event of process ", rank + trace_format::kFirstProcess, ", but step ",
                                  steps_.back().step, " has ", steps_.back().timeline.ranks, " ranks")};
    }
    return PipelineRank(rank);
  }

  void TakeSpan(const json& event) {
    const json& args = event.at("args");
    TraceStep& step = steps_.back();
    Span span;
    span.rank = RankOf(event);
    span.begin_ns = Nanoseconds(event.at("ts")) - step.begin_ns;
    span.end_ns = span.begin_ns + Nanoseconds(event.at("dur"));
    span.bytes = args.value("bytes", int64_t{0});
    Action& a = span.action;
    a.kind = ActionKindOf(event.at("cat").get_ref<const std::string&>());
    a.flags = static_cast<uint8_t>(args.value("flags", 0));
    a.copy = static_cast<int16_t>(args.value("copy", 0));
    a.stage = StageId(args.value("stage", -1));
    a.micro_batch = MicroBatch(args.value("micro_batch", -1));
    a.peer = PipelineRank(args.value("peer", -1));
    a.queue = QueueId(args.value("queue", -1));
    a.slot = args.value("slot", -1);
    a.stash = args.value("stash", -1);
    a.collective = args.value("collective", -1);
    if (span.end_ns < span.begin_ns) throw BadEvent{absl::StrCat("has ", ToString(a), " of negative duration")};
    step.timeline.spans.push_back(std::move(span));
  }

  void TakeSample(const json& event) {
    TraceStep& step = steps_.back();
    step.timeline.samples.push_back(
        {RankOf(event), Nanoseconds(event.at("ts")) - step.begin_ns, event.at("args").at("bytes").get<int64_t>()});
  }

  static constexpr int kRanksMax = 1 << 20;
  std::vector<TraceStep> steps_;
};

absl::Status ParseFailure(const std::string& path, std::ifstream& file, const json::parse_error& error) {
  const bool torn = file.eof() || file.peek() == std::ifstream::traits_type::eof();
  if (torn && error.byte <= 1) return absl::InvalidArgumentError(absl::StrCat(path, " is empty, not a trace"));
  if (torn) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is torn: it ends in the middle of the JSON, after byte ",
                                                   error.byte - 1, "; record or copy it again"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(path, " is not JSON and so not a trace (at byte ", error.byte, "): ", error.what()));
}

}  // namespace

absl::StatusOr<std::vector<TraceStep>> ReadChromeTrace(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file || file.peek() == std::ifstream::traits_type::eof()) {
    if (errno != 0) return FileError("read", path, errno);
    file.clear();
  }
  TraceReader reader;
  // Events are objects at depth 2; each is dropped again as soon as it has been read.
  const auto take = [&](int depth, json::parse_event_t what, json& parsed) {
    if (what != json::parse_event_t::object_end || depth != 2) return true;
    reader.Take(parsed);
    return false;
  };
  try {
    const json rest = json::parse(file, take);
  } catch (const json::parse_error& error) {
    return ParseFailure(path, file, error);
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a trace as this program writes it: ", error.what()));
  } catch (const BadEvent& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, " ", error.message));
  }
  if (reader.steps().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, " is JSON but has no step of a pipeline in it: only traces that this program wrote can be read"));
  }
  return std::move(reader.steps());
}

}  // namespace sluice
