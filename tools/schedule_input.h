// What the verbs that take a schedule have in common: a generator's name or a CSV file, the numbers of the pipeline,
// and what the stages cost (flags, a cost file, or the plan of a job).
//
// Costs are those of a model in ranks x chunks stages (or as many as the cost file or the job has). A schedule that
// cuts the model into another number of stages gets the same model, re-divided evenly, so that schedules with and
// without chunks can be compared.
#pragma once

#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "scheduler/cost_profile.h"
#include "scheduler/generators.h"
#include "scheduler/program.h"
#include "scheduler/schedule.h"

namespace sluice::tools {

// As typed. Times in milliseconds.
struct ScheduleArguments {
  GeneratorParams params{.ranks = 4, .chunks = 1, .micro_batches = 8};
  double forward = 1, input_gradient = 1, weight_gradient = 1, backward = 2, transfer = 0, optimizer = 0;
  int64_t message_bytes = 0;
  double bandwidth = 0;
  std::string costs_file, job_file;
  std::vector<const CLI::Option*> costs;  // as flags
  const CLI::Option* backward_option = nullptr;
  const CLI::Option *ranks = nullptr, *chunks = nullptr, *micro_batches = nullptr;
};

inline constexpr double kMillisecondsMax = 1e9;
// A number from `least` to `most`; unlike CLI::Range it refuses NaN.
CLI::Validator NumberInRange(double least, double most);

// Adds --ranks ... --job to the verb; filled when the command line is parsed. `arguments` must outlive the parse.
void AddScheduleArguments(CLI::App& verb, ScheduleArguments* arguments);

// The arguments, read and settled: numbers of the pipeline and costs.
struct ScheduleSetting {
  GeneratorParams params;  // its costs are empty: ReadSchedule fills them in for the stages there are
  CostProfile profile;
  bool costs_of_a_stage = true;  // from flags: every stage of a CSV file costs what they say
};
absl::StatusOr<ScheduleSetting> Settle(const ScheduleArguments& arguments);

// Whether `input` is meant as a schedule: a generator's name, or a file that ends in .csv.
bool NamesSchedule(const std::string& input);
std::string GeneratorNames();  // "gpipe, 1f1b, ..."

struct ScheduleInput {
  Schedule schedule;
  CostProfile profile;  // of its stages
};

// By generator or from a CSV file (resolved from where the user stands). `actions_max`: a setting whose F and B are
// more is refused before anything is built. Errors: with the generator's rule, the file's line and column, or both
// possibilities for a name that is neither.
absl::StatusOr<ScheduleInput> ReadSchedule(const std::string& input, const ScheduleSetting& setting,
                                           double actions_max);

// Lowered and proven with the costs' bytes. Weight gradients may stand in any order: a picture needs no bit-equality.
absl::StatusOr<Program> LowerAndProve(const Schedule& schedule, const Costs& costs);

}  // namespace sluice::tools
