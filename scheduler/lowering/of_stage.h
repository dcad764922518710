// The collectives between the holders of one stage.
#pragma once

#include <algorithm>

#include "scheduler/program.h"

namespace sluice {

inline Collective OfStage(CollectiveKind kind, StageId stage, const Placement& placement) {
  Collective collective{.kind = kind, .stage = stage};
  for (int copy = 0; copy < placement.copies(); ++copy) collective.members.push_back(placement.RankOf(stage, copy));
  std::sort(collective.members.begin(), collective.members.end());
  return collective;
}

}  // namespace sluice
