// sluice visualize: a recorded trace, or a schedule with its costs, as a picture, a page, a trace or text.
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "runtime/trace/chrome_trace.h"
#include "runtime/trace/deadlock_picture.h"
#include "runtime/trace/file_writer.h"
#include "runtime/trace/html.h"
#include "runtime/trace/perfetto_trace.h"
#include "runtime/trace/svg.h"
#include "runtime/trace/text_chart.h"
#include "scheduler/deadlock.h"
#include "scheduler/lowering.h"
#include "scheduler/simulate.h"
#include "tools/job_verb.h"
#include "tools/png.h"
#include "tools/schedule_input.h"
#include "tools/timeline_file.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

constexpr int kWidthMax = 20'000;
constexpr int kBoxesMax = 20'000'000;

struct VisualizeOptions {
  std::string input, against, output, format;
  int64_t step = 0;
  bool step_given = false;
  int width = 0;
  bool transfers = false;
  std::string color = "auto";
  ScheduleArguments schedule;
};

absl::StatusOr<std::string> FormatOf(const VisualizeOptions& options) {
  if (!options.format.empty()) return options.format;
  if (options.output.empty()) return "text";
  return TimelineFormat(options.output);
}

std::string OutputPath(const VisualizeOptions& options) {
  if (options.output.empty()) return "/dev/stdout";
  return UserPath(options.output);
}

// Why a schedule can't run. Of a deadlock there is a picture, written in place of the one that was asked for.
absl::Status Refused(const Schedule& schedule, const absl::Status& refusal, const VisualizeOptions& options) {
  ASSIGN_OR_RETURN(const Program program, Lower(schedule));
  const std::optional<Deadlock> deadlock = FindDeadlock(program);
  ASSIGN_OR_RETURN(const std::string format, FormatOf(options));
  const bool picture = format == "svg" || format == "png" || format == "html";
  if (!deadlock || !picture || options.output.empty()) return refusal;
  std::string drawing = DrawDeadlock(program, *deadlock);
  if (format == "png") {
    ASSIGN_OR_RETURN(drawing, PngOf(drawing));
  }
  if (format == "html") drawing = "<!DOCTYPE html>\n<meta charset=\"utf-8\">\n<title>deadlock</title>\n" + drawing;
  RETURN_IF_ERROR(WriteWholeFile(OutputPath(options), drawing));
  return absl::Status(refusal.code(), absl::StrCat(refusal.message(), "\nDrawn in ", options.output));
}

absl::StatusOr<Timeline> SimulateInput(const std::string& input, const VisualizeOptions& options) {
  ASSIGN_OR_RETURN(const ScheduleSetting setting, Settle(options.schedule));
  ASSIGN_OR_RETURN(const ScheduleInput read, ReadSchedule(input, setting, kBoxesMax));
  const Costs costs = CostsOf(read.profile);
  const absl::StatusOr<Program> program = LowerAndProve(read.schedule, costs);
  if (!program.ok()) return Refused(read.schedule, program.status(), options);
  return Simulate(*program, costs);
}

// The steps of a trace file, or one simulated step of a schedule.
absl::StatusOr<std::vector<TraceStep>> Load(const std::string& input, const VisualizeOptions& options) {
  if (NamesSchedule(input)) {
    ASSIGN_OR_RETURN(Timeline timeline, SimulateInput(input, options));
    return std::vector<TraceStep>{{1, 0, std::move(timeline)}};
  }
  const std::string path = UserPath(input);
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return absl::NotFoundError(absl::StrCat("'", input, "' is neither a trace file (there is no ", path,
                                            ") nor a schedule (a file that ends in .csv, or one of: ", GeneratorNames(),
                                            ")"));
  }
  return ReadChromeTrace(path);
}

// The step asked for; else the last one, which is the least disturbed by the start of a run.
absl::StatusOr<Timeline> Choose(const std::string& input, const VisualizeOptions& options) {
  ASSIGN_OR_RETURN(std::vector<TraceStep> steps, Load(input, options));
  if (!options.step_given || NamesSchedule(input)) return std::move(steps.back().timeline);
  for (TraceStep& step : steps) {
    if (step.step == options.step) return std::move(step.timeline);
  }
  const auto print_step = [](std::string* out, const TraceStep& step) { absl::StrAppend(out, step.step); };
  return absl::NotFoundError(
      absl::StrCat("'", input, "' has no step ", options.step, "; it has: ", absl::StrJoin(steps, ", ", print_step)));
}

bool ToTerminal(const VisualizeOptions& options) { return options.output.empty() && isatty(STDOUT_FILENO) != 0; }

TextChartOptions TextOptions(const VisualizeOptions& options) {
  TextChartOptions text{.width = options.width > 0 ? options.width : 100};
  winsize window;
  if (options.width == 0 && ToTerminal(options) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 &&
      window.ws_col > 0) {
    text.width = window.ws_col;
  }
  const bool colored = options.color == "always" || (options.color == "auto" && ToTerminal(options));
  text.colors = colored ? TextColors::kAnsi : TextColors::kNone;
  return text;
}

absl::Status WriteTrace(const VisualizeOptions& options, const std::string& format, const std::string& path) {
  if (!options.against.empty()) {
    return absl::InvalidArgumentError(
        "--against draws two timelines into one picture; a trace (json, perfetto) holds one: write two, or choose "
        "svg, png, html or text");
  }
  ASSIGN_OR_RETURN(std::vector<TraceStep> steps, Load(options.input, options));
  if (options.step_given) {
    ASSIGN_OR_RETURN(Timeline timeline, Choose(options.input, options));
    steps = {{options.step, 0, std::move(timeline)}};
  }
  return format == "perfetto" ? WritePerfettoTrace(path, steps) : WriteChromeTrace(path, steps);
}

absl::StatusOr<std::string> Draw(const VisualizeOptions& options, const std::string& format) {
  std::vector<Timeline> timelines;
  ASSIGN_OR_RETURN(Timeline first, Choose(options.input, options));
  timelines.push_back(std::move(first));
  if (!options.against.empty()) {
    ASSIGN_OR_RETURN(Timeline second, Choose(options.against, options));
    timelines.push_back(std::move(second));
  }
  if (format == "html") return DrawHtml(timelines);
  if (format == "text") return DrawText(timelines, TextOptions(options));
  const std::string svg = DrawSvg(
      timelines, {.width = options.width, .transfers = options.transfers ? DrawTransfers::kYes : DrawTransfers::kNo});
  if (format == "png") return PngOf(svg);
  return svg;
}

absl::Status Visualize(const VisualizeOptions& options) {
  ASSIGN_OR_RETURN(const std::string format, FormatOf(options));
  RETURN_IF_ERROR(CheckIsNoInput(options.output, {options.input, options.against}));
  const std::string path = OutputPath(options);
  if (format == "json" || format == "perfetto") {
    RETURN_IF_ERROR(WriteTrace(options, format, path));
  } else {
    ASSIGN_OR_RETURN(const std::string drawing, Draw(options, format));
    if (options.output.empty()) {
      const bool written = std::fwrite(drawing.data(), 1, drawing.size(), stdout) == drawing.size();
      return written && std::fflush(stdout) == 0 ? absl::OkStatus() : FileError("write", "the standard output", errno);
    }
    RETURN_IF_ERROR(WriteWholeFile(path, drawing));
  }
  if (!options.output.empty()) std::printf("wrote %s\n", options.output.c_str());
  return absl::OkStatus();
}

}  // namespace

Run AddVisualize(CLI::App& verb) {
  auto options = std::make_shared<VisualizeOptions>();
  verb.add_option("input", options->input,
                  "a trace file that this program recorded, or a schedule: a .csv file, or one of " + GeneratorNames())
      ->required();
  verb.add_option("-o,--output", options->output, "file to write; left out: standard output");
  verb.add_option("--format", options->format, "left out: by the output's ending, or text")
      ->check(CLI::IsMember({"svg", "png", "html", "text", "json", "perfetto"}));
  const CLI::Option* step =
      verb.add_option("--step", options->step, "step of a trace, counted from 1; left out: its last");
  verb.add_option("--against", options->against, "a second trace or schedule, drawn below on the same axis of time");
  verb.add_option("--width", options->width, "pixels of a picture, columns of text; 0: as fits")
      ->check(CLI::Range(0, kWidthMax));
  verb.add_flag("--transfers", options->transfers, "draw transfers as thin lines below each rank (svg, png)");
  verb.add_option("--color", options->color, "of text")->check(CLI::IsMember({"auto", "always", "never"}));
  AddScheduleArguments(verb, &options->schedule);
  return [options, step] {
    options->step_given = step->count() > 0;
    return Visualize(*options);
  };
}

}  // namespace sluice::tools
