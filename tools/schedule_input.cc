#include "tools/schedule_input.h"

#include <cmath>
#include <filesystem>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "base/time.h"
#include "proto/text.h"
#include "runtime/planner/plan.h"
#include "scheduler/csv.h"
#include "scheduler/lowering.h"
#include "tools/cost_file.h"
#include "tools/job_verb.h"

namespace sluice::tools {
namespace {

constexpr int64_t kCsvBytesMax = int64_t{4} << 30;

const Generator* FindGenerator(const std::string& name) {
  for (const Generator& generator : Generators()) {
    if (generator.name == name) return &generator;
  }
  return nullptr;
}

CostProfile ProfileFromFlags(const ScheduleArguments& arguments) {
  const auto ns = [](double milliseconds) { return std::llround(milliseconds * kMillisecond); };
  StageProfile stage;
  stage.costs.forward_ns = ns(arguments.forward);
  stage.costs.input_gradient_ns = ns(arguments.input_gradient);
  stage.costs.weight_gradient_ns = ns(arguments.weight_gradient);
  stage.costs.backward_ns = arguments.backward_option->count() > 0
                                ? ns(arguments.backward)
                                : stage.costs.input_gradient_ns + stage.costs.weight_gradient_ns;
  stage.costs.optimizer_ns = ns(arguments.optimizer);
  stage.costs.activation_bytes = stage.costs.gradient_bytes = arguments.message_bytes;
  const size_t stages = static_cast<size_t>(arguments.params.ranks) * arguments.params.chunks;
  return {.stages = std::vector<StageProfile>(stages, stage),
          .transfer_latency_ns = ns(arguments.transfer),
          .transfer_bytes_per_second = arguments.bandwidth};
}

CostProfile ProfileOf(const Plan& plan) {
  CostProfile profile{.transfer_latency_ns = plan.costs.transfer_latency_ns,
                      .transfer_bytes_per_second = plan.costs.transfer_bytes_per_second,
                      .collective_ns = plan.costs.collective_ns};
  for (size_t s = 0; s < plan.costs.stages.size(); ++s) {  // of the first copy of the model: all are alike
    profile.stages.push_back({.costs = plan.stages[s].costs,
                              .stash_bytes = plan.stages[s].memory.stash_slot,
                              .gradient_stash_bytes = plan.stages[s].memory.gradient_stash_slot,
                              .fixed_bytes = plan.stage_bytes[s].fixed});
  }
  return profile;
}

absl::Status SettleByJob(const ScheduleArguments& arguments, ScheduleSetting& setting) {
  ASSIGN_OR_RETURN(const JobConfig job, LoadJob({.file = arguments.job_file}));
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(job));
  setting.profile = ProfileOf(plan);
  if (arguments.ranks->count() == 0) setting.params.ranks = job.layout.pp;
  if (arguments.chunks->count() == 0) setting.params.chunks = job.layout.chunks;
  if (arguments.micro_batches->count() == 0) setting.params.micro_batches = plan.training.micro_batches;
  return absl::OkStatus();
}

absl::Status CheckOneSource(const ScheduleArguments& arguments) {
  if (!arguments.costs_file.empty() && !arguments.job_file.empty()) {
    return absl::InvalidArgumentError("--costs and --job both say what the stages cost: give one of them");
  }
  if (arguments.costs_file.empty() && arguments.job_file.empty()) return absl::OkStatus();
  for (const CLI::Option* option : arguments.costs) {
    if (option->count() == 0) continue;
    return absl::InvalidArgumentError(absl::StrCat(option->get_name(), " says what a stage costs, and so does ",
                                                   arguments.costs_file.empty() ? "--job" : "--costs",
                                                   ": leave one of them out"));
  }
  return absl::OkStatus();
}

absl::Status CheckActions(double actions, double actions_max, const std::string& input) {
  if (actions <= actions_max) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", input, "' has ", actions, " actions, more than ", actions_max,
                                                 ": make ranks, chunks or micro-batches smaller"));
}

absl::StatusOr<ScheduleInput> ReadCsvFile(const std::string& input, const ScheduleSetting& setting,
                                          double actions_max) {
  const std::string path = UserPath(input);
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return absl::NotFoundError(absl::StrCat("'", input, "' is neither a schedule file (there is no ", path,
                                            ") nor a schedule's name (there are: ", GeneratorNames(), ")"));
  }
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kCsvBytesMax));
  ScheduleInput result;
  ASSIGN_OR_RETURN(result.schedule, ReadCsv(text, input));
  double actions = 0;
  for (const auto& list : result.schedule.ranks) actions += static_cast<double>(list.size());
  RETURN_IF_ERROR(CheckActions(actions, actions_max, input));
  const int stages = result.schedule.placement.stages();
  if (setting.costs_of_a_stage) {
    result.profile = setting.profile;
    const size_t model_stages = result.schedule.ranks.size() * setting.params.chunks;
    result.profile.stages.assign(model_stages, setting.profile.stages.front());
    result.profile = Redivide(result.profile, stages);
  } else {
    result.profile = Redivide(setting.profile, stages);
  }
  RETURN_IF_ERROR(CheckDuration(result.profile, result.schedule.micro_batches));
  return result;
}

// Twice, since only the schedule says how many stages it has.
absl::StatusOr<ScheduleInput> GenerateWithCosts(const Generator& generator, const ScheduleSetting& setting) {
  ASSIGN_OR_RETURN(const Schedule bare, generator.generate(setting.params));
  ScheduleInput result{.profile = Redivide(setting.profile, bare.placement.stages())};
  GeneratorParams params = setting.params;
  params.costs = PassCostsOf(result.profile);
  ASSIGN_OR_RETURN(result.schedule, generator.generate(params));
  return result;
}

}  // namespace

CLI::Validator NumberInRange(double least, double most) {
  return CLI::Validator(
      [least, most](const std::string& text) -> std::string {
        double value = 0;
        if (absl::SimpleAtod(text, &value) && value >= least && value <= most) return "";
        return absl::StrCat("expected a number from ", least, " to ", most, ", found '", text, "'");
      },
      "");
}

void AddScheduleArguments(CLI::App& verb, ScheduleArguments* arguments) {
  const std::string numbers = "Schedules", costs = "Costs (times in milliseconds)";
  const auto add_count = [&](const std::string& name, int& value, int least, const std::string& text) {
    return verb.add_option(name, value, text)->group(numbers)->check(CLI::Range(least, 1 << 20));
  };
  const auto add_time = [&](const std::string& name, double& value, const std::string& text) {
    arguments->costs.push_back(
        verb.add_option(name, value, text)->group(costs)->check(NumberInRange(0, kMillisecondsMax)));
    return arguments->costs.back();
  };
  GeneratorParams& params = arguments->params;
  arguments->ranks = add_count("--ranks", params.ranks, 1, "ranks along the pipeline");
  arguments->chunks = add_count("--chunks", params.chunks, 1, "stages on each rank");
  arguments->micro_batches = add_count("--micro-batches", params.micro_batches, 1, "micro-batches of a step");
  add_count("--group-size", params.group_size, 0,
            "interleaved schedules: micro-batches per group; 0: as many as ranks");
  verb.add_option("--in-flight-cap", params.in_flight_cap,
                  "schedules that follow costs: most micro-batches in flight on a rank; 0: as many as ranks")
      ->group(numbers)
      ->check(NumberInRange(0, 1e9));
  add_time("--forward", arguments->forward, "forward of one of ranks x chunks stages");
  add_time("--input-gradient", arguments->input_gradient, "input gradient of a stage");
  add_time("--weight-gradient", arguments->weight_gradient, "weight gradient of a stage");
  arguments->backward_option =
      add_time("--backward", arguments->backward, "both gradients at once; left out: the sum of the two");
  add_time("--transfer", arguments->transfer, "a message between two ranks: its latency");
  add_time("--optimizer", arguments->optimizer, "optimizer step of a stage");
  arguments->costs.push_back(verb.add_option("--message-bytes", arguments->message_bytes, "of each message")
                                 ->group(costs)
                                 ->check(CLI::Range(int64_t{0}, int64_t{1} << 50)));
  arguments->costs.push_back(
      verb.add_option("--bandwidth", arguments->bandwidth, "of messages, bytes a second; 0: unlimited")
          ->group(costs)
          ->check(NumberInRange(0, 1e15)));
  verb.add_option("--costs", arguments->costs_file, "a cost profile (text form of proto/costs.proto) in their place")
      ->group(costs);
  verb.add_option("--job", arguments->job_file, "a job file in their place: costs and numbers of its plan")
      ->group(costs);
}

absl::StatusOr<ScheduleSetting> Settle(const ScheduleArguments& arguments) {
  RETURN_IF_ERROR(CheckOneSource(arguments));
  ScheduleSetting setting{.params = arguments.params};
  if (!arguments.job_file.empty()) {
    setting.costs_of_a_stage = false;
    RETURN_IF_ERROR(SettleByJob(arguments, setting));
  } else if (!arguments.costs_file.empty()) {
    setting.costs_of_a_stage = false;
    ASSIGN_OR_RETURN(setting.profile, ReadCostFile(UserPath(arguments.costs_file)));
  } else {
    const double stages = 1.0 * arguments.params.ranks * arguments.params.chunks;
    if (stages > 1 << 20) {
      return absl::InvalidArgumentError(
          absl::StrCat("--ranks x --chunks are ", stages, " stages, more than can be handled; make one smaller"));
    }
    setting.profile = ProfileFromFlags(arguments);
  }
  RETURN_IF_ERROR(CheckDuration(setting.profile, setting.params.micro_batches));
  return setting;
}

bool NamesSchedule(const std::string& input) {
  return FindGenerator(input) != nullptr || absl::EndsWith(input, ".csv");
}

std::string GeneratorNames() {
  return absl::StrJoin(Generators(), ", ",
                       [](std::string* out, const Generator& generator) { out->append(generator.name); });
}

absl::StatusOr<ScheduleInput> ReadSchedule(const std::string& input, const ScheduleSetting& setting,
                                           double actions_max) {
  const Generator* generator = FindGenerator(input);
  if (generator == nullptr) return ReadCsvFile(input, setting, actions_max);
  const double actions = 2.0 * setting.params.ranks * setting.params.chunks * setting.params.micro_batches;
  RETURN_IF_ERROR(CheckActions(actions, actions_max, input));
  return GenerateWithCosts(*generator, setting);
}

absl::StatusOr<Program> LowerAndProve(const Schedule& schedule, const Costs& costs) {
  absl::StatusOr<Program> program = Lower(schedule);
  if (!program.ok()) return Annotate(program.status(), schedule.name);
  const VerifierOptions options{.stage_bytes = costs.stage_bytes,
                                .weight_gradient_order = WeightGradientOrder::kReported};
  RETURN_IF_ERROR(Annotate(Verify(*program, options).status(), schedule.name));
  return program;
}

}  // namespace sluice::tools
