// sluice simulate: several schedules at one setting, timed and compared.
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/status.h"
#include "base/time.h"
#include "runtime/config/device_file.h"
#include "runtime/trace/file_writer.h"
#include "tools/comparison.h"
#include "tools/forecast.h"
#include "tools/job_verb.h"
#include "tools/schedule_input.h"
#include "tools/timeline_file.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

constexpr double kActionsMax = 50e6;

struct SimulateArguments {
  std::vector<std::string> inputs;
  ScheduleArguments schedule;
  std::string output, format, engines = "unlimited";
  std::vector<std::string> stragglers;
  double jitter = 0, host_latency = 0, host_bandwidth = 0;
  uint64_t seed = 1;
  int hosts = 1;
  std::string devices;                 // --on
  std::vector<std::string> overrides;  // of the job
  std::string timeline;                // a file
};

struct Straggler {
  int rank = 0;
  double factor = 1;
};

absl::StatusOr<std::vector<Straggler>> ReadStragglers(const std::vector<std::string>& words) {
  std::vector<Straggler> stragglers;
  for (const std::string& word : words) {
    const std::vector<std::string> parts = absl::StrSplit(word, '=');
    Straggler straggler;
    constexpr double kFactorMax = 1000;
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &straggler.rank) || straggler.rank < 0 ||
        !absl::SimpleAtod(parts[1], &straggler.factor) || !(straggler.factor > 0 && straggler.factor <= kFactorMax)) {
      return absl::InvalidArgumentError(absl::StrCat("--straggler ", word,
                                                     ": expected RANK=FACTOR, as in 3=1.5, with a ",
                                                     "factor over 0 and at most ", kFactorMax));
    }
    stragglers.push_back(straggler);
  }
  return stragglers;
}

absl::Status CheckHostLine(double bytes_per_second, const Costs& costs) {
  constexpr double kSecondsMax = 1e6;  // of one message
  for (const StageCosts& stage : costs.stages) {
    const auto bytes = static_cast<double>(std::max(stage.activation_bytes, stage.gradient_bytes));
    if (bytes_per_second <= 0 || bytes / bytes_per_second <= kSecondsMax) continue;
    return absl::InvalidArgumentError(absl::StrCat("--host-bandwidth ", bytes_per_second, ": a message of ", bytes,
                                                   " bytes would take over ", kSecondsMax, " seconds; 0 is unlimited"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Scenario> ScenarioFor(const SimulateArguments& arguments, int ranks, const Costs& costs) {
  Scenario scenario{.jitter = arguments.jitter, .seed = arguments.seed};
  scenario.network.engines = arguments.engines == "one"   ? TransferEngines::kOne
                             : arguments.engines == "two" ? TransferEngines::kTwo
                                                          : TransferEngines::kUnlimited;
  if (arguments.hosts > 1) {
    scenario.network.ranks_per_host = (ranks + arguments.hosts - 1) / arguments.hosts;
    scenario.network.host_latency_ns = std::llround(arguments.host_latency * kMillisecond);
    scenario.network.host_bytes_per_second = arguments.host_bandwidth;
    RETURN_IF_ERROR(CheckHostLine(arguments.host_bandwidth, costs));
  }
  ASSIGN_OR_RETURN(const std::vector<Straggler> stragglers, ReadStragglers(arguments.stragglers));
  for (const Straggler& straggler : stragglers) {
    if (straggler.rank >= ranks) {
      return absl::InvalidArgumentError(absl::StrCat("--straggler ", straggler.rank, "=", straggler.factor,
                                                     ": the schedule's ranks are 0 to ", ranks - 1));
    }
    scenario.slowdown.resize(ranks, 1.0);
    scenario.slowdown[straggler.rank] = straggler.factor;
  }
  return scenario;
}

// --chunks counts for the schedules that take it; the others keep their own number of stages, with the same model.
absl::StatusOr<ScheduleInput> ReadWithOwnChunks(const std::string& input, const ScheduleSetting& setting) {
  absl::StatusOr<ScheduleInput> read = ReadSchedule(input, setting, kActionsMax);
  if (read.ok() || setting.params.chunks == 1) return read;
  ScheduleSetting own = setting;
  own.params.chunks = 1;
  absl::StatusOr<ScheduleInput> again = ReadSchedule(input, own, kActionsMax);
  return again.ok() ? std::move(again) : std::move(read);
}

absl::StatusOr<ComparisonRow> SimulateOne(const std::string& input, const ScheduleSetting& setting,
                                          const SimulateArguments& arguments) {
  ASSIGN_OR_RETURN(const ScheduleInput read, ReadWithOwnChunks(input, setting));
  const Costs costs = CostsOf(read.profile);
  ASSIGN_OR_RETURN(const Program program, LowerAndProve(read.schedule, costs));
  ASSIGN_OR_RETURN(const Scenario scenario, ScenarioFor(arguments, program.placement.ranks(), costs));
  ASSIGN_OR_RETURN(const Timeline timeline, Simulate(program, costs, scenario));
  return MakeRow(input, program, timeline);
}

// All that train, if none is named.
std::vector<std::string> Inputs(const SimulateArguments& arguments) {
  if (!arguments.inputs.empty()) return arguments.inputs;
  std::vector<std::string> names;
  for (const Generator& generator : Generators()) {
    if (generator.name != "forward_only") names.push_back(generator.name);
  }
  return names;
}

absl::StatusOr<std::string> FormatOf(const SimulateArguments& arguments) {
  if (!arguments.format.empty()) return arguments.format;
  if (arguments.output.empty() || absl::EndsWith(arguments.output, ".txt")) return "text";
  if (absl::EndsWith(arguments.output, ".csv")) return "csv";
  if (absl::EndsWith(arguments.output, ".json")) return "json";
  return absl::InvalidArgumentError(absl::StrCat("the ending of '", arguments.output,
                                                 "' does not say how to write the table: end it in .txt, .csv or "
                                                 ".json, or give --format"));
}

int Width(const SimulateArguments& arguments) {
  winsize window;
  if (arguments.output.empty() && isatty(STDOUT_FILENO) != 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 &&
      window.ws_col > 0) {
    return window.ws_col;
  }
  return 120;
}

absl::Status Print(const SimulateArguments& arguments, const std::string& text) {
  if (!arguments.output.empty()) return WriteWholeFile(UserPath(arguments.output), text);
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size()
             ? absl::OkStatus()
             : absl::ErrnoToStatus(errno, "cannot write to standard output");
}

// With --on the one input is a job, which says everything else.
absl::Status CheckForecast(const SimulateArguments& arguments, const std::string& format) {
  const ScheduleArguments& schedule = arguments.schedule;
  if (arguments.inputs.size() != 1 || NamesSchedule(arguments.inputs.front())) {
    return absl::InvalidArgumentError("--on takes one job file: sluice simulate JOB --on \"8x H100\"; another schedule "
                                      "by --set schedule.name=...");
  }
  std::vector<const CLI::Option*> others = schedule.costs;
  others.insert(others.end(), {schedule.ranks, schedule.chunks, schedule.micro_batches});
  for (const CLI::Option* option : others) {
    if (option->count() == 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(option->get_name(), ": with --on the job and the device say it; ",
                                                   "--set changes the job, as in --set layout.pp=8"));
  }
  if (!schedule.job_file.empty() || !schedule.costs_file.empty()) {
    return absl::InvalidArgumentError("--job and --costs have no place beside --on, which takes the costs of the job "
                                      "that stands first");
  }
  if (format == "csv") return absl::InvalidArgumentError("--on writes its table as text or json");
  return CheckIsNoInput(arguments.timeline, arguments.inputs);
}

absl::Status RunForecast(const SimulateArguments& arguments, const std::string& format) {
  RETURN_IF_ERROR(CheckForecast(arguments, format));
  std::string timeline_format;
  if (!arguments.timeline.empty()) {
    ASSIGN_OR_RETURN(timeline_format, TimelineFormat(arguments.timeline));
  }
  ASSIGN_OR_RETURN(JobConfig job, LoadJob({.file = arguments.inputs.front(), .overrides = arguments.overrides, .device = "cpu"},
                                          ProfileFile::kIgnored));
  ASSIGN_OR_RETURN(const Forecast forecast, MakeForecast(std::move(job), arguments.devices, UserDirectory()));
  const Plan& plan = forecast.plan;
  ASSIGN_OR_RETURN(Scenario scenario, ScenarioFor(arguments, plan.job.layout.pp, plan.costs));
  if (arguments.hosts == 1) {
    const TransferEngines engines = scenario.network.engines;
    scenario.network = plan.scenario.network;
    scenario.network.engines = engines;
  }
  ASSIGN_OR_RETURN(const Timeline timeline, Simulate(plan.training, plan.costs, scenario));
  if (!arguments.timeline.empty()) {
    RETURN_IF_ERROR(WriteTimeline(UserPath(arguments.timeline), timeline_format, timeline));
  }
  return Print(arguments,
               format == "json" ? ForecastToJson(forecast, timeline) : ForecastToText(forecast, timeline));
}

absl::Status CheckNoForecast(const SimulateArguments& arguments) {
  if (arguments.overrides.empty() && arguments.timeline.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(arguments.overrides.empty() ? "--timeline" : "--set",
                                                 " goes with --on, as in sluice simulate JOB --on \"8x H100\"",
                                                 arguments.overrides.empty() ? "; of a schedule, visualize draws it"
                                                                             : ""));
}

absl::Status RunSimulate(const SimulateArguments& arguments) {
  ASSIGN_OR_RETURN(const std::string format, FormatOf(arguments));
  if (!arguments.devices.empty()) return RunForecast(arguments, format);
  RETURN_IF_ERROR(CheckNoForecast(arguments));
  RETURN_IF_ERROR(CheckIsNoInput(arguments.output, arguments.inputs));
  RETURN_IF_ERROR(ReadStragglers(arguments.stragglers).status());
  ASSIGN_OR_RETURN(const ScheduleSetting setting, Settle(arguments.schedule));
  std::vector<ComparisonRow> rows;
  for (const std::string& input : Inputs(arguments)) {
    absl::StatusOr<ComparisonRow> row = SimulateOne(input, setting, arguments);
    rows.push_back(row.ok() ? *std::move(row) : ComparisonRow{.schedule = input, .refusal = row.status()});
  }
  const bool none = std::all_of(rows.begin(), rows.end(), [](const ComparisonRow& row) { return !row.refusal.ok(); });
  if (none) return rows.front().refusal;
  const std::string text = format == "csv"    ? RowsToCsv(rows)
                           : format == "json" ? RowsToJson(rows)
                                              : RowsToText(rows, Width(arguments));
  return Print(arguments, text);
}

void AddForecastArguments(CLI::App& verb, SimulateArguments* arguments) {
  const std::string group = "A job on devices that aren't here";
  verb.add_option("--on", arguments->devices,
                  "how the job that stands in place of schedules would run there; of " +
                      absl::StrJoin(ShippedDevices(), ", ") + ", or a .textproto file")
      ->group(group)
      ->type_name("\"8x H100\"");
  verb.add_option("--set", arguments->overrides, "changes a field of the job: layout.pp=8 (may be given repeatedly)")
      ->group(group)
      ->type_name("PATH=VALUE")
      ->take_all()
      ->expected(1);
  verb.add_option("--timeline", arguments->timeline, "file to draw the step into: .svg, .png, .html, .txt, .json, .pftrace")
      ->group(group);
}

}  // namespace

Run AddSimulate(CLI::App& verb) {
  auto arguments = std::make_shared<SimulateArguments>();
  verb.add_option("schedules", arguments->inputs,
                  "schedules to compare: .csv files, or names; left out: all that train of " + GeneratorNames());
  verb.add_option("-o,--output", arguments->output, "file to write; left out: standard output");
  verb.add_option("--format", arguments->format, "left out: by the output's ending, or text")
      ->check(CLI::IsMember({"text", "csv", "json"}));
  AddForecastArguments(verb, arguments.get());
  AddScheduleArguments(verb, &arguments->schedule);
  const std::string group = "Scenario";
  verb.add_option("--jitter", arguments->jitter, "each action takes up to this share more or less, by --seed")
      ->group(group)
      ->check(NumberInRange(0, 0.99));
  verb.add_option("--seed", arguments->seed, "of the jitter")->group(group);
  verb.add_option("--straggler", arguments->stragglers, "a rank that computes slower (may be given repeatedly)")
      ->group(group)
      ->type_name("RANK=FACTOR")
      ->take_all()
      ->allow_extra_args(false);
  verb.add_option("--engines", arguments->engines,
                  "how many messages a rank moves at once: one, two (one each way), unlimited")
      ->group(group)
      ->check(CLI::IsMember({"one", "two", "unlimited"}));
  verb.add_option("--hosts", arguments->hosts, "hosts, among which the ranks are shared side by side")
      ->group(group)
      ->check(CLI::Range(1, 1 << 20));
  verb.add_option("--host-latency", arguments->host_latency, "of a message between hosts, in milliseconds")
      ->group(group)
      ->check(NumberInRange(0, kMillisecondsMax));
  verb.add_option("--host-bandwidth", arguments->host_bandwidth,
                  "of each host's line, bytes a second each way, shared evenly by the messages on it; 0: unlimited")
      ->group(group)
      ->check(NumberInRange(0, 1e15));
  return [arguments] { return RunSimulate(*arguments); };
}

}  // namespace sluice::tools
