// The verbs of the program, one file each. A verb adds its subcommand and options to the command line and returns what to do
// when it was chosen.
#pragma once

#include <functional>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"

namespace sluice::tools {

// Called after parsing if the verb was chosen. An error is printed and ends the program with code 1.
using Run = std::function<absl::Status()>;

Run AddTrain(CLI::App& verb);
Run AddWorker(CLI::App& verb);
Run AddPlan(CLI::App& verb);
Run AddSimulate(CLI::App& verb);
Run AddVisualize(CLI::App& verb);
Run AddSearch(CLI::App& verb);
Run AddBench(CLI::App& verb);
Run AddProfile(CLI::App& verb);

}  // namespace sluice::tools
