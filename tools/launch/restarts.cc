#include "tools/launch/restarts.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice::tools {
namespace {

std::string From(int64_t step) { return step > 0 ? absl::StrCat("after step ", step) : "from the beginning"; }

void SayAll(const RestartOptions& options, const std::vector<std::string>& restarts) {
  if (restarts.empty()) return;
  options.say(absl::StrCat(restarts.size(), restarts.size() == 1 ? " restart:" : " restarts:"));
  for (const std::string& restart : restarts) options.say(absl::StrCat("  ", restart));
}

}  // namespace

absl::StatusOr<SupervisionResult> RunWithRestarts(World* world, const RestartOptions& options) {
  std::vector<std::string> restarts;
  int in_a_row = 0;
  int64_t saved = options.saved_step();
  Nanoseconds pause = options.first_pause;
  for (;;) {
    ASSIGN_OR_RETURN(SupervisionResult result, options.run());
    const bool is_over = result.code == 0 || result.was_signalled || options.most == 0;
    if (!is_over) {
      const int64_t now_saved = options.saved_step();
      if (now_saved > saved) {
        in_a_row = 0;
        pause = options.first_pause;
      }
      saved = now_saved;
    }
    if (is_over || in_a_row == options.most) {
      SayAll(options, restarts);
      if (!is_over) absl::StrAppend(&result.cause, " (given up after ", in_a_row, " restarts without progress)");
      return result;
    }
    ++in_a_row;
    restarts.push_back(absl::StrCat(options.date(), ", ", From(saved), ": ", result.cause));
    options.say(absl::StrCat("restart ", in_a_row, " of ", options.most, " in ", pause / kSecond, " s, ", From(saved),
                             ": ", result.cause));
    world->SleepUntil(world->Now() + pause);
    pause = std::min(2 * pause, options.longest_pause);
  }
}

}  // namespace sluice::tools
