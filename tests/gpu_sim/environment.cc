#include "tests/gpu_sim/environment.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"

namespace gpu_sim {
namespace {

struct OfProgram {
  std::unique_ptr<sluice::World> world = sluice::NewRealWorld();
  std::unique_ptr<Machine> machine;
};
OfProgram* of_program = nullptr;

// As an exit handler. The machine is left as it is: streams of other static objects may still be there.
void ExitWithReports() {
  const std::string text = of_program->machine->ReportText();
  if (text.empty()) return;
  std::fprintf(stderr, "gpu_sim found:\n%s", text.c_str());
  std::fflush(nullptr);
  _exit(1);
}

}  // namespace

absl::StatusOr<MachineOptions> ParseMachineOptions(const std::string& text) {
  MachineOptions options;
  for (absl::string_view word : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> pair = absl::StrSplit(word, absl::MaxSplits('=', 1));
    int64_t value = 0;
    if (!absl::SimpleAtoi(pair.second, &value) || value < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("GPU_SIM: \"", word, "\": a name, =, and a number that is not negative"));
    }
    if (pair.first == "devices" && value <= 64) {
      options.devices = static_cast<int>(value);
    } else if (pair.first == "seed") {
      options.seed = static_cast<uint64_t>(value);
    } else if (pair.first == "threads" && value <= 1) {
      options.fidelity = value == 1 ? Fidelity::kEveryThread : Fidelity::kBodies;
    } else if (pair.first == "memory_mib" && value < int64_t{1} << 40) {
      options.memory_limit = value << 20;
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("GPU_SIM: \"", word, "\": one of devices (to 64), seed, threads (0 or 1), memory_mib"));
    }
  }
  return options;
}

void InstallMachineOfEnvironment() {
  static const bool installed = [] {
    const char* text = std::getenv("GPU_SIM");
    absl::StatusOr<MachineOptions> options = ParseMachineOptions(text != nullptr ? text : "");
    if (!options.ok()) {
      std::fprintf(stderr, "%s\n", std::string(options.status().message()).c_str());
      _exit(2);
    }
    of_program = new OfProgram;
    options->world = of_program->world.get();
    options->timing = Timing::kNone;
    of_program->machine = std::make_unique<Machine>(*std::move(options));
    return std::atexit(ExitWithReports) == 0;
  }();
  CHECK(installed);
}

}  // namespace gpu_sim
