// What the processes of a job must agree on before anything moves.
#pragma once

#include <string>
#include <vector>

#include "runtime/control/protocol.h"
#include "runtime/data/dataset.h"
#include "runtime/planner/plan.h"

namespace sluice {

// Of the whole program file: two builds of one version may compute differently.
std::string BuildFingerprint();
// Its size, and a hash of windows of tokens evenly spread over it.
std::string DataFingerprint(const TokenStream& stream);

// The job, the plan with its schedule, the data (its size and samples of it) and the program (`program`: its name and
// version; the build is found out).
std::vector<Fingerprint> FingerprintsOf(const Plan& plan, const Dataset& dataset, const std::string& program);

}  // namespace sluice
