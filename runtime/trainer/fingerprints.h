// What the processes of a job must agree on before anything moves.
#pragma once

#include <string>
#include <vector>

#include "runtime/control/protocol.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"

namespace sluice {

// The job, the plan with its schedule, the data (its size and samples of it) and the program (`program`: its name and
// version; the build is found out).
std::vector<Fingerprint> FingerprintsOf(const Plan& plan, const Dataset& dataset, const std::string& program);

}  // namespace sluice
