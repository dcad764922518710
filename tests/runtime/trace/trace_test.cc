// The trace file: what is written is what viewers accept, and comes back as it was.
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/trace/chrome_trace.h"
#include "runtime/trace/perfetto_trace.h"
#include "tests/runtime/trace/parse_perfetto.h"
#include "tests/runtime/trace/test_files.h"
#include "tests/runtime/trace/test_timelines.h"
#include "tests/runtime/trace/trace_checker.h"

namespace sluice {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// --- A reader of the JSON that shares nothing with ours --------------------------------------------------------------

class ChromeParser {
 public:
  ParsedTrace Parse(const std::string& text) {
    const json file = json::parse(text);
    for (const json& event : file.at("traceEvents")) Take(event);
    EXPECT_TRUE(open_.empty()) << open_.size() << " flows without an end";
    return std::move(trace_);
  }

 private:
  // Microseconds are numbers with at most three decimals: nanoseconds, exactly.
  static int64_t Time(const json& value) {
    EXPECT_TRUE(value.is_number());
    const double ns = value.get<double>() * 1000;
    EXPECT_NEAR(ns, std::round(ns), 1e-3);
    return std::llround(ns);
  }

  void Take(const json& event) {
    const std::string phase = event.at("ph");
    if (phase == "M") return TakeName(event);
    ASSERT_TRUE(event.at("ts").is_number());
    if (phase == "X") {
      const int64_t begin = Time(event.at("ts"));
      trace_.slices[{event.at("pid"), event.at("tid")}].push_back(
          {begin, begin + Time(event.at("dur")), event.at("name"), event.at("cat"), event.at("args")});
    } else if (phase == "s" || phase == "f") {
      TakeFlow(event, phase == "s");
    } else if (phase == "C") {
      trace_.memory[event.at("pid")].emplace_back(Time(event.at("ts")), event.at("args").at("bytes"));
    } else {
      EXPECT_EQ(phase, "i");
      ++trace_.marks;
    }
  }

  // Identity is id, category and name: all three agree at both ends. In the file a flow stands behind its slice.
  void TakeFlow(const json& event, bool starts) {
    ASSERT_TRUE(event.at("id").is_number_integer()) << "text ids are read as hexadecimal";
    const std::string key = event.at("id").dump() + event.at("cat").dump() + event.at("name").dump();
    const TrackKey track(event.at("pid"), event.at("tid"));
    ASSERT_TRUE(trace_.slices.count(track)) << "flow " << key << " stands before its slice";
    if (starts) {
      EXPECT_TRUE(open_.emplace(key, TraceArrow{.from = track, .start = Time(event.at("ts"))}).second)
          << key << " twice";
      return;
    }
    EXPECT_EQ(event.value("bp", ""), "e") << "without it the arrow goes to the slice behind";
    const auto start = open_.find(key);
    ASSERT_TRUE(start != open_.end()) << "flow " << key << " ends before it starts";
    start->second.to = track;
    start->second.finish = Time(event.at("ts"));
    trace_.arrows.push_back(start->second);
    open_.erase(start);
  }

  void TakeName(const json& event) {
    const std::string kind = event.at("name");
    const json& args = event.at("args");
    if (kind == "process_name") trace_.process_names[event.at("pid")] = args.at("name");
    if (kind == "thread_name") trace_.thread_names[{event.at("pid"), event.at("tid")}] = args.at("name");
  }

  ParsedTrace trace_;
  std::map<std::string, TraceArrow> open_;
};

// --- Both formats ----------------------------------------------------------------------------------------------------

struct TraceFormat {
  const char* name;
  absl::Status (*write)(const std::string& path, const std::vector<TraceStep>& steps);
  ParsedTrace (*parse)(const std::string& bytes);
};

class TraceFile : public ::testing::TestWithParam<TraceFormat> {
 protected:
  // Written, parsed and found to keep the rules.
  static ParsedTrace Written(const std::vector<TraceStep>& steps) {
    const std::string path = TestPath("written");
    const absl::Status status = GetParam().write(path, steps);
    EXPECT_TRUE(status.ok()) << status;
    ParsedTrace trace = GetParam().parse(ReadText(path));
    EXPECT_EQ(trace.marks, static_cast<int>(steps.size()));
    CheckTrace(trace);
    return trace;
  }
};

INSTANTIATE_TEST_SUITE_P(
    All, TraceFile,
    ::testing::Values(TraceFormat{"Chrome", WriteChromeTrace,
                                  [](const std::string& text) { return ChromeParser().Parse(text); }},
                      TraceFormat{"Perfetto", WritePerfettoTrace,
                                  [](const std::string& bytes) { return PerfettoParser().Parse(bytes); }}),
    [](const auto& info) { return info.param.name; });

TEST_P(TraceFile, KeepsTheRulesOfViewersForEveryScheduleAndQueuePolicy) {
  for (const Generator& generator : Generators()) {
    for (const QueuePolicy queues : {QueuePolicy::kOnePerRank, QueuePolicy::kOneCommPerRank,
                                     QueuePolicy::kOnePerDirection, QueuePolicy::kOnePerEdge}) {
      SCOPED_TRACE(generator.name + " with queue policy " + std::to_string(static_cast<int>(queues)));
      const Timeline timeline =
          SimulatedTimeline({.schedule = generator.name, .chunks = ChunksFor(generator.name, 4, 8), .queues = queues});
      const ParsedTrace trace = Written({{1, 0, timeline}, {2, 100'000'000, timeline}});
      CheckAddsUp(Written({{1, 0, timeline}}), timeline);
      std::map<std::string, size_t> kinds;
      for (const Span& span : timeline.spans) kinds[ActionKindName(span.action.kind)] += 2;
      EXPECT_EQ(trace.arrows.size(), kinds["SEND_F"] + kinds["SEND_B"]) << "one arrow per message and step";
      for (const auto& [kind, count] : kinds) EXPECT_EQ(trace.SlicesOf(kind), count) << kind;
    }
  }
}

TEST_P(TraceFile, TransfersWithoutDurationHaveTheirArrowsToo) {
  SimulatedRun run{.latency_ns = 0};
  run.costs.activation_bytes = run.costs.gradient_bytes = 0;
  EXPECT_EQ(Written({{1, 0, SimulatedTimeline(run)}}).arrows.size(), 2u * 3 * 8);
}

TEST_P(TraceFile, NamesRanksStagesAndTracks) {
  const ParsedTrace trace = Written({{1, 0, SimulatedTimeline({.ranks = 2})}});
  EXPECT_EQ(trace.process_names.at(1), "rank 0 (stages 0)");
  EXPECT_EQ(trace.process_names.at(2), "rank 1 (stages 1)");
  std::set<std::string> tracks;
  for (const auto& [track, name] : trace.thread_names) {
    if (track.first == 2) tracks.insert(name);
  }
  EXPECT_THAT(tracks, ElementsAre("collectives", "compute", "receive up", "send down"));
}

TEST_P(TraceFile, SlicesAreTheSpansWithTheirFacts) {
  const Timeline timeline = SimulatedTimeline({});
  std::multiset<std::tuple<int, int64_t, int64_t, std::string, int64_t, int64_t, int64_t>> written, expected;
  const int64_t begin_ns = 5'000'000'123;
  const auto fact = [](const TraceSlice& slice, const char* name, int64_t otherwise) {
    const auto found = slice.args.find(name);
    return found == slice.args.end() ? otherwise : found->second;
  };
  for (const auto& [track, slices] : Written({{3, begin_ns, timeline}}).slices) {
    for (const TraceSlice& s : slices) {
      written.insert({track.first - 1, s.begin, s.end, s.name, fact(s, "stage", -1), fact(s, "micro_batch", -1),
                      fact(s, "bytes", 0)});
    }
  }
  for (const Span& s : timeline.spans) {
    expected.insert({s.rank.value(), s.begin_ns + begin_ns, s.end_ns + begin_ns, ToString(s.action),
                     s.action.stage.value(), s.action.micro_batch.value(), s.bytes});
  }
  EXPECT_EQ(written, expected);
}

TEST_P(TraceFile, MemoryIsThatOfTheTimeline) {
  const Timeline timeline = SimulatedTimeline({});
  const ParsedTrace trace = Written({{1, 0, timeline}});
  std::map<int, std::vector<std::pair<int64_t, int64_t>>> expected;
  for (const MemorySample& sample : timeline.samples) {
    expected[sample.rank.value() + 1].emplace_back(sample.time_ns, sample.bytes);
  }
  EXPECT_EQ(trace.memory, expected);
}

// Measured steps overlap where simulated ones don't: an F and a B at once, a receive posted long before its send.
TEST_P(TraceFile, OverlappingSpansGetTracksOfTheirOwn) {
  Timeline timeline{.name = "odd", .source = TimelineSource::kMeasured, .ranks = 2, .stages = 2, .micro_batches = 2};
  timeline.queues = {{QueueKind::kCompute, "compute"}, {QueueKind::kCommunication, "up"}};
  const auto add = [&](int rank, Action action, int64_t begin, int64_t end) {
    timeline.spans.push_back({PipelineRank(rank), action, begin, end});
  };
  const auto send = [](int micro_batch) {
    return Action{.kind = ActionKind::kSendForward,
                  .stage = StageId(0),
                  .micro_batch = MicroBatch(micro_batch),
                  .peer = PipelineRank(1),
                  .queue = QueueId(1)};
  };
  const auto receive = [](int micro_batch) {
    return Action{.kind = ActionKind::kRecvForward,
                  .stage = StageId(1),
                  .micro_batch = MicroBatch(micro_batch),
                  .peer = PipelineRank(0),
                  .queue = QueueId(1)};
  };
  add(0, Forward(StageId(0), MicroBatch(0)), 0, 10);
  add(0, Backward(StageId(0), MicroBatch(1)), 5, 20);
  add(1, receive(0), 0, 16);  // posted before the send began
  add(0, send(0), 10, 16);
  add(1, receive(1), 2, 21);  // posted ahead
  add(0, send(1), 20, 23);    // began 1 ns before its receive ended
  const ParsedTrace trace = Written({{7, 0, timeline}});
  EXPECT_EQ(trace.arrows.size(), 2u);
  EXPECT_EQ(trace.slices.size(), 2u + 1u + 2u);
  ASSERT_TRUE(WriteChromeTrace(TestPath("odd.json"), {{7, 0, timeline}}).ok());
  const auto read = ReadChromeTrace(TestPath("odd.json"));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(Sorted(read->front().timeline.spans), Sorted(timeline.spans));
}

TEST_P(TraceFile, NoArrowGoesBackInTime) {
  Timeline timeline{.name = "skewed", .ranks = 2, .stages = 2, .micro_batches = 1};
  const Action send{
      .kind = ActionKind::kSendForward, .stage = StageId(0), .micro_batch = MicroBatch(0), .peer = PipelineRank(1)};
  const Action receive{
      .kind = ActionKind::kRecvForward, .stage = StageId(1), .micro_batch = MicroBatch(0), .peer = PipelineRank(0)};
  timeline.spans = {{PipelineRank(0), send, 100, 110}, {PipelineRank(1), receive, 50, 60}};
  EXPECT_EQ(Written({{1, 0, timeline}}).arrows.size(), 0u);
}

// --- Reading ---------------------------------------------------------------------------------------------------------

void ExpectEqual(const TraceStep& read, const TraceStep& written) {
  EXPECT_EQ(read.step, written.step);
  EXPECT_EQ(read.begin_ns, written.begin_ns);
  const Timeline &a = read.timeline, &b = written.timeline;
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.source, b.source);
  EXPECT_EQ(a.ranks, b.ranks);
  EXPECT_EQ(a.stages, b.stages);
  EXPECT_EQ(a.micro_batches, b.micro_batches);
  EXPECT_EQ(a.queues, b.queues);
  EXPECT_EQ(Sorted(a.spans), Sorted(b.spans));
  EXPECT_EQ(a.samples, b.samples);
  EXPECT_EQ(Measure(a).makespan_bubble, Measure(b).makespan_bubble);
  EXPECT_EQ(Measure(a).span_ns, Measure(b).span_ns);
  EXPECT_EQ(Measure(a).step_ns, Measure(b).step_ns);
}

TEST(ChromeTrace, ComesBackAsItWasWritten) {
  Timeline measured = SimulatedTimeline({.ranks = 3, .micro_batches = 5, .queues = QueuePolicy::kOnePerEdge});
  measured.source = TimelineSource::kMeasured;
  measured.name = "a \"name\"\n with \\ and ü";
  measured.spans.front().action.flags = kOverlapsNext;
  measured.spans.front().action.copy = 1;
  // A step that begins a day after the first one: still exact to the nanosecond.
  const std::vector<TraceStep> steps = {{11, 0, SimulatedTimeline({.schedule = "gpipe"})},
                                        {12, 123'456'789, measured},
                                        {13, 86'400'000'000'001, measured}};
  const std::string path = TestPath("round.json");
  ASSERT_TRUE(WriteChromeTrace(path, steps).ok());
  const auto read = ReadChromeTrace(path);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), steps.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    SCOPED_TRACE(i);
    ExpectEqual((*read)[i], steps[i]);
  }
}

std::string ReadError(const std::string& text) {
  const std::string path = TestPath("bad.json");
  WriteText(path, text);
  const auto read = ReadChromeTrace(path);
  EXPECT_FALSE(read.ok());
  EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(read.status().message()), HasSubstr(path));
  return std::string(read.status().message());
}

TEST(ChromeTrace, ATornFileIsCalledTornWhereverItEnds) {
  const std::string path = TestPath("whole.json");
  ASSERT_TRUE(WriteChromeTrace(path, {{0, 0, SimulatedTimeline({.ranks = 2, .micro_batches = 2})}}).ok());
  const std::string whole = ReadText(path);
  const size_t last = whole.find_last_of('}');
  for (size_t length = 1; length <= last; length += 97)
    EXPECT_THAT(ReadError(whole.substr(0, length)), HasSubstr("torn"));
  EXPECT_THAT(ReadError(whole.substr(0, last)), HasSubstr("torn"));
}

TEST(ChromeTrace, ForeignFilesAreRefusedWithTheReason) {
  EXPECT_THAT(ReadError(""), HasSubstr("empty"));
  EXPECT_THAT(ReadError("model { family: \"gpt2\" }"), HasSubstr("not JSON"));
  EXPECT_THAT(ReadError("{\"traceEvents\":[{\"ph\":\"X\",\"name\":\"other\",\"ts\":1,\"dur\":2,\"pid\":1,\"tid\":1}]}"),
              HasSubstr("no step"));
  EXPECT_THAT(ReadError("[]"), HasSubstr("no step"));
  EXPECT_THAT(ReadError("7"), HasSubstr("no step"));
  EXPECT_THAT(ReadError("{\"traceEvents\":[{\"ph\":3}]}"), HasSubstr("not a trace"));
}

TEST(ChromeTrace, DamagedEventsAreRefusedWithTheReason) {
  const std::string path = TestPath("whole.json");
  ASSERT_TRUE(WriteChromeTrace(path, {{0, 0, SimulatedTimeline({.ranks = 2, .micro_batches = 2})}}).ok());
  const std::string whole = ReadText(path);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = whole;
    const size_t at = text.find(from);
    CHECK(at != std::string::npos);
    return text.replace(at, from.size(), to);
  };
  EXPECT_THAT(ReadError(with("\"version\":1", "\"version\":999")), HasSubstr("version 999"));
  EXPECT_THAT(ReadError(with("\"cat\":\"F\"", "\"cat\":\"G\"")), HasSubstr("unknown kind 'G'"));
  EXPECT_THAT(ReadError(with("\"ranks\":2", "\"ranks\":1")), HasSubstr("process 2"));
  EXPECT_THAT(ReadError(with("\"ranks\":2", "\"ranks\":2000000000")), HasSubstr("2000000000 ranks"));
  EXPECT_THAT(ReadError(with("\"dur\":", "\"long\":")), HasSubstr("dur"));
  EXPECT_THAT(ReadError(with("\"kind\":\"compute\"", "\"kind\":\"magic\"")), HasSubstr("magic"));
}

TEST(ChromeTrace, AMissingFileIsNamed) {
  const auto read = ReadChromeTrace("/nowhere/trace.json");
  EXPECT_EQ(read.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(read.status().message()), HasSubstr("/nowhere/trace.json"));
  EXPECT_FALSE(ReadChromeTrace(::testing::TempDir()).ok()) << "a folder";
}

// --- Writing where it fails ------------------------------------------------------------------------------------------

TEST(ChromeTrace, WhereItCannotBeWrittenTheErrorHasPathAndRemedy) {
  const Timeline timeline = SimulatedTimeline({});
  absl::Status status = WriteChromeTrace("/nowhere/at/all.json", {{0, 0, timeline}});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("/nowhere/at/all.json"), HasSubstr("create its folder")));
  status = WriteChromeTrace(::testing::TempDir(), {{0, 0, timeline}});
  EXPECT_THAT(std::string(status.message()), HasSubstr("folder"));
  status = WriteChromeTrace("/dev/full", {{0, 0, timeline}});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("/dev/full"), HasSubstr("free space")));
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
}

TEST(ChromeTrace, AFailedWriteLeavesNothingHalfWrittenAndTheOldFileAsItWas) {
  const std::string folder = EmptyFolder("failed_write"), path = folder + "/trace.json";
  const Timeline timeline = SimulatedTimeline({.ranks = 8, .micro_batches = 64});
  {
    FileSizeLimit limit(10'000);
    EXPECT_FALSE(WriteChromeTrace(path, {{0, 0, timeline}}).ok());
  }
  EXPECT_THAT(Names(folder), IsEmpty());
  WriteText(path, "old");
  {
    FileSizeLimit limit(10'000);
    EXPECT_FALSE(WriteChromeTrace(path, {{0, 0, timeline}}).ok());
  }
  EXPECT_THAT(Names(folder), ElementsAre("trace.json"));
  EXPECT_EQ(ReadText(path), "old");
}

TEST(ChromeTrace, AnUnfinishedFileHasNoName) {
  const std::string folder = EmptyFolder("unfinished"), path = folder + "/trace.json";
  {
    auto writer = ChromeTraceWriter::Create(path);
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->Add({0, 0, SimulatedTimeline({})}).ok());
    EXPECT_FALSE(std::filesystem::exists(path));
  }
  EXPECT_THAT(Names(folder), IsEmpty());
}

TEST(ChromeTrace, ALinkStaysALink) {
  const std::string folder = EmptyFolder("link");
  WriteText(folder + "/target.json", "old");
  std::filesystem::create_symlink(folder + "/target.json", folder + "/link.json");
  ASSERT_TRUE(WriteChromeTrace(folder + "/link.json", {{0, 0, SimulatedTimeline({})}}).ok());
  EXPECT_TRUE(std::filesystem::is_symlink(folder + "/link.json"));
  EXPECT_TRUE(ReadChromeTrace(folder + "/target.json").ok());
}

TEST_P(TraceFile, SpansThatCannotBeAreRefused) {
  Timeline timeline = SimulatedTimeline({});
  timeline.spans[3].rank = PipelineRank(4);
  EXPECT_EQ(GetParam().write("/dev/null", {{0, 0, timeline}}).code(), absl::StatusCode::kInvalidArgument);
  timeline = SimulatedTimeline({});
  timeline.spans[3].end_ns = timeline.spans[3].begin_ns - 1;
  EXPECT_EQ(GetParam().write("/dev/null", {{0, 0, timeline}}).code(), absl::StatusCode::kInvalidArgument);
  timeline = SimulatedTimeline({});
  timeline.samples[0].rank = PipelineRank(-1);
  EXPECT_EQ(GetParam().write("/dev/null", {{0, 0, timeline}}).code(), absl::StatusCode::kInvalidArgument);
}

// Formats that a viewer reads but we don't: the wire itself is looked at by the compiler of Protocol Buffers.
TEST(PerfettoTrace, ProtocDecodesIt) {
  if (std::system("command -v protoc >/dev/null 2>&1") != 0) GTEST_SKIP() << "no protoc (package protobuf-compiler)";
  const std::string path = TestPath("wire.pftrace");
  ASSERT_TRUE(WritePerfettoTrace(path, {{1, 0, SimulatedTimeline({})}}).ok());
  ASSERT_EQ(std::system(("protoc --decode_raw <" + path + " >" + path + ".txt").c_str()), 0);
  const std::string text = ReadText(path + ".txt");
  EXPECT_THAT(text,
              AllOf(HasSubstr("23: \"0F3\""), HasSubstr("5: \"compute\""), HasSubstr("6: \"rank 3 (stages 3)\"")));
}

// The aim is 3 s on a machine of its own. Processor time is counted, since tests share theirs.
TEST_P(TraceFile, AMillionSpansTakeLessThanThreeSeconds) {
  const Timeline timeline = SimulatedTimeline({.ranks = 64, .micro_batches = 2700});
  ASSERT_GE(timeline.spans.size(), 1'000'000u);
  const std::clock_t start = std::clock();
  ASSERT_TRUE(GetParam().write("/dev/null", {{1, 0, timeline}}).ok());
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  std::printf("%zu spans in %.2f s\n", timeline.spans.size(), seconds);
  EXPECT_LT(seconds, 3);
}

}  // namespace
}  // namespace sluice
