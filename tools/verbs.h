// The verbs of the program, one file each. A verb adds its subcommand and options to the command line and returns what to do
// when it was chosen.
#pragma once

#include <functional>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace sluice::tools {

// Called after parsing if the verb was chosen. An error is printed and ends the program with ExitCode().
using Run = std::function<absl::Status()>;

// An error for which the program ends with `code` and not with 1.
inline constexpr char kExitCode[] = "sluice.exit_code";
inline absl::Status WithExitCode(absl::Status error, int code) {
  error.SetPayload(kExitCode, absl::Cord(absl::StrCat(code)));
  return error;
}
inline int ExitCode(const absl::Status& status) {
  const auto payload = status.GetPayload(kExitCode);
  int code = status.ok() ? 0 : 1;
  if (payload.has_value() && !absl::SimpleAtoi(std::string(*payload), &code)) code = 1;
  return code;
}

Run AddTrain(CLI::App& verb);
Run AddLaunch(CLI::App& verb);
Run AddSupervise(CLI::App& verb);
Run AddWorker(CLI::App& verb);
Run AddPlan(CLI::App& verb);
Run AddDevices(CLI::App& verb);
Run AddEvaluate(CLI::App& verb);
Run AddTokenize(CLI::App& verb);
Run AddGenerate(CLI::App& verb);
Run AddSimulate(CLI::App& verb);
Run AddVisualize(CLI::App& verb);
Run AddSearch(CLI::App& verb);
Run AddBench(CLI::App& verb);
Run AddProfile(CLI::App& verb);
Run AddCheckpoint(CLI::App& verb);

}  // namespace sluice::tools
