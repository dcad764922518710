#include "scheduler/program.h"

namespace sluice {

const char* PoolName(Pool pool) {
  switch (pool) {
    case Pool::kInput:
      return "INPUT";
    case Pool::kOutput:
      return "OUTPUT";
    case Pool::kOutputGradient:
      return "OUTPUT_GRADIENT";
    case Pool::kInputGradient:
      return "INPUT_GRADIENT";
    case Pool::kStash:
      return "STASH";
    case Pool::kGradientStash:
      return "GRADIENT_STASH";
  }
  return "?";
}

std::vector<int> InFlight(const Program& program) { return InFlight(program.pass, program.placement, program.ranks); }

}  // namespace sluice
