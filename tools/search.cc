// sluice search: the best schedule for given costs and a memory cap; and how much memory is worth.
#include "scheduler/search.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "runtime/trace/chart.h"
#include "runtime/trace/curve_svg.h"
#include "runtime/trace/file_writer.h"
#include "scheduler/csv.h"
#include "tools/job_verb.h"
#include "tools/schedule_input.h"
#include "tools/verbs.h"

namespace sluice::tools {
namespace {

constexpr double kActionsMax = 5'000'000;
constexpr int kRowsMax = 8;  // generators printed

struct SearchArguments {
  ScheduleArguments schedule;
  std::string cap, objective = "makespan", output, picture;
  double seconds = 10, weight_memory = 1;
  uint64_t seed = 1;
  bool sweep = false, two_copies = false;
  int points = 16;
};

// A memory cap as typed: "12" or "12.5" micro-batches in flight, "2p" of them, or "24GiB".
struct Cap {
  double in_flight = 0;
  int64_t bytes = 0;
};

absl::StatusOr<Cap> ReadCap(const std::string& text, int ranks) {
  absl::string_view number = text;
  double factor = 0, value = 0;
  Cap cap;
  for (const auto& [unit, bytes] : {std::pair("KiB", 0x1p10),
                                    {"MiB", 0x1p20},
                                    {"GiB", 0x1p30},
                                    {"kB", 1e3},
                                    {"MB", 1e6},
                                    {"GB", 1e9},
                                    {"B", 1.0}}) {
    if (factor == 0 && absl::ConsumeSuffix(&number, unit)) factor = bytes;
  }
  const bool of_ranks = factor == 0 && absl::ConsumeSuffix(&number, "p");
  if (!absl::SimpleAtod(number, &value) || !(value > 0) || value * std::max(factor, 1.0) > 1e18) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--cap: expected micro-batches in flight on a rank (12), multiples of the ranks (2p) or bytes (24GiB), found '",
        text, "'"));
  }
  if (factor > 0) {
    cap.bytes = static_cast<int64_t>(value * factor);
  } else {
    cap.in_flight = of_ranks ? value * ranks : value;
  }
  return cap;
}

struct Setting {
  SearchProblem problem;
  bool bytes_known = false;
};

// CLI::Range lets a NaN through.
CLI::Validator NumberFrom(double least, double most) {
  return CLI::Validator(
      [=](const std::string& text) -> std::string {
        double value = 0;
        if (absl::SimpleAtod(text, &value) && value >= least && value <= most) return "";
        return absl::StrCat("expected a number from ", least, " to ", most, ", found '", text, "'");
      },
      "NUMBER");
}

absl::StatusOr<Setting> MakeSetting(const SearchArguments& arguments) {
  ASSIGN_OR_RETURN(const ScheduleSetting settled, Settle(arguments.schedule));
  const GeneratorParams& params = settled.params;
  Setting setting{.problem = {.ranks = params.ranks,
                              .micro_batches = params.micro_batches,
                              .objective = arguments.objective == "span" ? Objective::kSpan : Objective::kMakespan}};
  for (const StageProfile& stage : settled.profile.stages) setting.bytes_known |= stage.stash_bytes > 0;
  const bool fixed = arguments.schedule.chunks->count() > 0 || !arguments.schedule.job_file.empty();
  std::vector<int> chunks = fixed ? std::vector<int>{params.chunks} : std::vector<int>{1, 2};
  const double actions = 3.0 * params.ranks * chunks.back() * params.micro_batches;
  if (actions > kActionsMax) {
    return absl::InvalidArgumentError(absl::StrCat("ranks x chunks x micro-batches give ", actions,
                                                   " actions, more than can be searched (", kActionsMax,
                                                   "): make one of them smaller"));
  }
  for (int v : chunks) {
    setting.problem.cuts.push_back(CutModel(settled.profile, params.ranks, v, arguments.weight_memory));
  }
  if (!arguments.cap.empty()) {
    ASSIGN_OR_RETURN(const Cap cap, ReadCap(arguments.cap, params.ranks));
    if (cap.bytes > 0 && !setting.bytes_known) {
      return absl::InvalidArgumentError(
          "--cap in bytes needs the bytes of the stages (--costs with stash_bytes, or --job); "
          "or give it in micro-batches: --cap 12, --cap 2p");
    }
    setting.problem.in_flight_cap = cap.in_flight, setting.problem.rank_bytes_cap = cap.bytes;
  } else {
    setting.problem.in_flight_cap = params.in_flight_cap > 0 ? params.in_flight_cap : params.ranks;
  }
  return setting;
}

absl::StatusOr<SearchResult> SearchFor(double seconds, const SearchArguments& arguments, const SearchProblem& problem) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  return Search(problem, {.seed = arguments.seed,
                          .evaluations = int64_t{1} << 40,
                          .copies = arguments.two_copies ? ModelCopies::kAlsoTwo : ModelCopies::kOne,
                          .out_of_time = [end] { return std::chrono::steady_clock::now() >= end; }});
}

// Mean share of the time in which a rank idles, the same yardstick for all cuts of a model: its work, evenly spread.
double Bubble(const SearchProblem& problem, int64_t time_ns) {
  double work = 0;
  for (const StageCosts& c : problem.cuts[0].costs.stages) {
    work += static_cast<double>(c.forward_ns + std::min(c.backward_ns, c.input_gradient_ns + c.weight_gradient_ns));
  }
  if (time_ns <= 0) return 0;
  return std::max(0.0, 1 - work * problem.micro_batches / problem.ranks / static_cast<double>(time_ns));
}

std::string CapWords(const SearchProblem& problem) {
  if (problem.rank_bytes_cap > 0) return absl::StrCat(FormatBytes(problem.rank_bytes_cap), " of activations on a rank");
  return absl::StrFormat("%.4g micro-batches in flight on a rank", problem.in_flight_cap);
}

std::string TimeCells(const SearchProblem& problem, const Times& times) {
  const auto cell = [&](int64_t ns) {
    return absl::StrFormat("%12s %8.2f %%", FormatNanoseconds(ns), 100 * Bubble(problem, ns));
  };
  return absl::StrCat(cell(times.makespan_ns), cell(times.span_ns));
}

std::string Row(const SearchProblem& problem, const std::string& name, const Candidate& candidate) {
  return absl::StrFormat("%-20s %6d %s %8.4g\n", name, candidate.chunks, TimeCells(problem, candidate.times),
                         candidate.memory_share_max);
}

double Gap(int64_t found, int64_t bound) {
  return bound <= 0 ? 0 : static_cast<double>(found - bound) / static_cast<double>(bound);
}

std::string ToText(const SearchProblem& problem, const SearchResult& result) {
  std::string text = absl::StrFormat("%d ranks, %d micro-batches, at most %s; the %s is optimised\n\n", problem.ranks,
                                     problem.micro_batches, CapWords(problem), ObjectiveName(problem.objective));
  absl::StrAppendFormat(&text, "%-20s %6s %12s %10s%12s %10s %8s\n", "schedule", "chunks", "makespan", "bubble", "span",
                        "bubble", "in flight");
  text += Row(problem, "found", result.found);
  std::string refused;
  int rows = 0;
  for (const Candidate& generator : result.generators) {
    if (generator.refusal.empty() && rows++ < kRowsMax) text += Row(problem, generator.name, generator);
    if (absl::StrContains(generator.refusal, "more than the cap")) {
      absl::StrAppendFormat(&refused, "%s%s (%d, %.4g)", refused.empty() ? "" : ", ", generator.name, generator.chunks,
                            generator.memory_share_max);
    }
  }
  absl::StrAppendFormat(&text, "%-27s %s\n", "lower bound", TimeCells(problem, result.lower_bound));
  absl::StrAppendFormat(&text, "%-27s %12.2f %% %10s%10.2f %%\n", "gap of found",
                        100 * Gap(result.found.times.makespan_ns, result.lower_bound.makespan_ns), "",
                        100 * Gap(result.found.times.span_ns, result.lower_bound.span_ns));
  if (rows > kRowsMax) absl::StrAppend(&text, "and ", rows - kRowsMax, " slower generators that fit the cap\n");
  if (!refused.empty()) absl::StrAppend(&text, "over the cap (chunks, in flight): ", refused, "\n");
  absl::StrAppendFormat(
      &text, "\nfound by %s after %d orders%s\n", result.method, result.evaluations,
      result.optimal ? absl::StrCat("; proven: no ", ObjectiveName(problem.objective), " is shorter") : "");
  return text;
}

absl::Status SearchOnce(const SearchArguments& arguments) {
  if (!arguments.picture.empty()) {
    return absl::InvalidArgumentError(
        "--picture draws the curve of --sweep-memory; to draw one schedule, write it with -o and give it to `sluice "
        "visualize`");
  }
  if (!arguments.output.empty() && !absl::EndsWith(arguments.output, ".csv")) {
    return absl::InvalidArgumentError(
        absl::StrCat("the schedule is written as CSV: end '", arguments.output, "' in .csv"));
  }
  ASSIGN_OR_RETURN(const Setting setting, MakeSetting(arguments));
  ASSIGN_OR_RETURN(const SearchResult result, SearchFor(arguments.seconds, arguments, setting.problem));
  ASSIGN_OR_RETURN(const Program program, LowerAndProve(result.schedule, result.cut.costs));
  std::printf("%s", ToText(setting.problem, result).c_str());
  ASSIGN_OR_RETURN(const Timeline timeline, Simulate(program, result.cut.costs));
  const TimelineMetrics lowered = Measure(timeline);
  std::printf("proven to run; with queues and slots for its transfers: makespan %s, span %s\n",
              FormatNanoseconds(lowered.makespan_ns).c_str(), FormatNanoseconds(lowered.span_ns).c_str());
  if (arguments.output.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(WriteWholeFile(UserPath(arguments.output), WriteCsv(result.schedule.ranks)));
  std::printf("wrote %s\n", arguments.output.c_str());
  return absl::OkStatus();
}

// One cap of the sweep. Nothing: no order was found under it.
struct SweepPoint {
  double cap = 0;  // micro-batches in flight
  std::optional<Candidate> best_generator, found;
  std::string method;
  Times lower_bound;
  bool optimal = false;
  std::vector<Candidate> generators;  // that fit
};

// What fits a smaller cap fits a larger one: the best so far stays.
void KeepBest(Objective objective, const SweepPoint& before, SweepPoint& point) {
  if (before.found.has_value() &&
      (!point.found.has_value() || before.found->times.Of(objective) < point.found->times.Of(objective))) {
    point.found = before.found, point.method = before.method;
  }
}

absl::StatusOr<std::vector<SweepPoint>> SweepCaps(const SearchArguments& arguments, SearchProblem problem) {
  const double most = problem.in_flight_cap > 0 && !arguments.cap.empty() ? problem.in_flight_cap : 2.0 * problem.ranks;
  const double cap_max = std::min(most, static_cast<double>(problem.micro_batches));
  std::vector<SweepPoint> points;
  for (int k = 1; k <= arguments.points; ++k) {
    problem.in_flight_cap = cap_max * k / arguments.points;
    SweepPoint point{.cap = problem.in_flight_cap};
    absl::StatusOr<SearchResult> result = SearchFor(arguments.seconds / arguments.points, arguments, problem);
    if (!result.ok() && result.status().code() != absl::StatusCode::kResourceExhausted) return result.status();
    if (result.ok()) {
      point.found = result->found, point.method = result->method;
      point.lower_bound = result->lower_bound, point.optimal = result->optimal;
      for (Candidate& generator : result->generators) {
        if (generator.refusal.empty()) point.generators.push_back(std::move(generator));
      }
      if (!point.generators.empty()) point.best_generator = point.generators[0];
    }
    if (!points.empty()) KeepBest(problem.objective, points.back(), point);
    points.push_back(std::move(point));
  }
  return points;
}

std::string SweepText(const SearchProblem& problem, const std::vector<SweepPoint>& points) {
  std::string text =
      absl::StrFormat("%d ranks, %d micro-batches; the %s is optimised\n\n%9s  %-20s %6s %10s %10s %12s  %s\n",
                      problem.ranks, problem.micro_batches, ObjectiveName(problem.objective), "in flight",
                      "best generator", "chunks", "bubble", "found", "lower bound", "method");
  const auto bubble = [&](const Times& times) {
    return absl::StrFormat("%.2f %%", 100 * Bubble(problem, times.Of(problem.objective)));
  };
  for (const SweepPoint& point : points) {
    if (!point.found.has_value()) {
      absl::StrAppendFormat(&text, "%9.4g  nothing was found that fits\n", point.cap);
      continue;
    }
    absl::StrAppendFormat(&text, "%9.4g  %-20s %6s %10s %10s %12s  %s%s\n", point.cap,
                          point.best_generator ? point.best_generator->name : "none fits",
                          point.best_generator ? absl::StrCat(point.best_generator->chunks) : "",
                          point.best_generator ? bubble(point.best_generator->times) : "", bubble(point.found->times),
                          bubble(point.lower_bound), point.method, point.optimal ? ", proven best" : "");
  }
  return text;
}

std::string SweepCsv(const SearchProblem& problem, const std::vector<SweepPoint>& points) {
  std::string csv =
      "in_flight_cap,best_generator,generator_chunks,generator_makespan_ns,generator_span_ns,found_chunks,found_"
      "makespan_ns,"
      "found_span_ns,found_bubble,lower_bound_makespan_ns,lower_bound_span_ns,method\n";
  for (const SweepPoint& point : points) {
    if (!point.found.has_value()) continue;
    absl::StrAppendFormat(&csv, "%.6g,", point.cap);
    if (const auto& g = point.best_generator) {
      absl::StrAppend(&csv, g->name, ",", g->chunks, ",", g->times.makespan_ns, ",", g->times.span_ns, ",");
    } else {
      csv += ",,,,";
    }
    absl::StrAppendFormat(&csv, "%d,%d,%d,%.6f,%d,%d,\"%s\"\n", point.found->chunks, point.found->times.makespan_ns,
                          point.found->times.span_ns, Bubble(problem, point.found->times.Of(problem.objective)),
                          point.lower_bound.makespan_ns, point.lower_bound.span_ns, point.method);
  }
  return csv;
}

// Each generator once, at the memory and the bubble that it really has.
std::vector<CurveMark> Marks(const SearchProblem& problem, const std::vector<SweepPoint>& points) {
  std::vector<CurveMark> marks;
  for (const SweepPoint& point : points) {
    for (const Candidate& generator : point.generators) {
      const std::string name =
          problem.cuts.size() == 1 ? generator.name : absl::StrCat(generator.name, " v=", generator.chunks);
      const CurvePoint at{generator.memory_share_max, 100 * Bubble(problem, generator.times.Of(problem.objective))};
      const auto known =
          std::find_if(marks.begin(), marks.end(), [&](const CurveMark& mark) { return mark.name == name; });
      if (known == marks.end()) {
        marks.push_back({name, at});
      } else if (at.y < known->point.y - 1e-9) {
        known->point = at;  // one that follows costs and cap: its best
      }
    }
  }
  return marks;
}

CurvePicture SweepPicture(const SearchProblem& problem, const std::vector<SweepPoint>& points) {
  CurvePicture picture{
      .title = "Bubble against memory",
      .caption = absl::StrFormat("%d ranks, %d micro-batches; bubble of the %s, in percent of it", problem.ranks,
                                 problem.micro_batches, ObjectiveName(problem.objective)),
      .x_name = "most micro-batches in flight on a rank",
      .y_name = "bubble, %",
      .lines = {{.name = "found by the search"},
                {.name = "lower bound: nothing is below", .style = CurveStyle::kDashedSteps}},
      .marks = Marks(problem, points)};
  const auto bubble = [&](const Times& times) { return 100 * Bubble(problem, times.Of(problem.objective)); };
  double cap_before = 0;
  for (const SweepPoint& point : points) {
    const double before = std::exchange(cap_before, point.cap);
    if (!point.found.has_value()) continue;
    // An order is worth its bubble from the memory on that it needs; a bound holds for all smaller caps.
    std::vector<CurvePoint>& found = picture.lines[0].points;
    const CurvePoint at{point.found->memory_share_max, bubble(point.found->times)};
    while (!found.empty() && found.back().x >= at.x && found.back().y >= at.y) found.pop_back();
    if (found.empty() || at.y < found.back().y) found.push_back(at);
    if (point.lower_bound.makespan_ns > 0) picture.lines[1].points.push_back({before, bubble(point.lower_bound)});
  }
  if (!picture.lines[0].points.empty()) picture.y_max = std::min(100.0, 1.1 * picture.lines[0].points.front().y + 1);
  return picture;
}

absl::Status Sweep(const SearchArguments& arguments) {
  ASSIGN_OR_RETURN(Setting setting, MakeSetting(arguments));
  if (setting.problem.rank_bytes_cap > 0) {
    return absl::InvalidArgumentError(
        "--sweep-memory goes over micro-batches in flight: give --cap as their largest number, or leave it out");
  }
  ASSIGN_OR_RETURN(const std::vector<SweepPoint> points, SweepCaps(arguments, setting.problem));
  std::printf("%s", SweepText(setting.problem, points).c_str());
  if (!arguments.output.empty()) {
    RETURN_IF_ERROR(WriteWholeFile(UserPath(arguments.output), SweepCsv(setting.problem, points)));
    std::printf("wrote %s\n", arguments.output.c_str());
  }
  if (arguments.picture.empty()) return absl::OkStatus();
  const CurvePicture picture = SweepPicture(setting.problem, points);
  if (picture.lines[0].points.empty())
    return absl::NotFoundError("nothing was found under any cap: there is no curve to draw");
  RETURN_IF_ERROR(WriteWholeFile(UserPath(arguments.picture), DrawCurves(picture)));
  std::printf("wrote %s\n", arguments.picture.c_str());
  return absl::OkStatus();
}

}  // namespace

Run AddSearch(CLI::App& verb) {
  auto arguments = std::make_shared<SearchArguments>();
  verb.add_option("--cap", arguments->cap,
                  "most memory of a rank: micro-batches in flight (12), multiples of the ranks (2p), or bytes (24GiB); "
                  "left out: p")
      ->type_name("CAP");
  verb.add_option("--objective", arguments->objective, "what is optimised; both are printed")
      ->check(CLI::IsMember({"makespan", "span"}));
  verb.add_option("--seconds", arguments->seconds, "when to end at the latest")->check(NumberFrom(0.001, 1e6));
  verb.add_option("--seed", arguments->seed, "of the local search");
  verb.add_option("--weight-memory", arguments->weight_memory,
                  "share of a forward's memory that stays from I to W; without bytes in the costs")
      ->check(NumberFrom(0, 10));
  verb.add_flag("--two-copies", arguments->two_copies, "also schedules that hold two copies of the model");
  verb.add_option("-o,--output", arguments->output,
                  "the schedule as .csv, for train, simulate and visualize; or the sweep's table as .csv");
  verb.add_flag("--sweep-memory", arguments->sweep,
                "the best bubble for each of many caps, up to --cap (left out: 2p)");
  verb.add_option("--points", arguments->points, "caps of a sweep")->check(CLI::Range(1, 1000));
  verb.add_option("--picture", arguments->picture, "the sweep's curve as .svg");
  AddScheduleArguments(verb, &arguments->schedule);
  return [arguments] { return arguments->sweep ? Sweep(*arguments) : SearchOnce(*arguments); };
}

}  // namespace sluice::tools
