// Which world rank stands where, and what each takes in, as text.
#pragma once

#include <string>

#include "runtime/planner/plan.h"

namespace sluice {

// Empty for a single rank.
std::string GridText(const Plan& plan);

}  // namespace sluice
