// A deadlock as a picture: the lists of the ranks that wait in a circle, from left to right in issue order, and
// numbered arrows from each action that waits to the one that it waits for; below, the same in words.
#pragma once

#include <string>

#include "scheduler/deadlock.h"
#include "scheduler/program.h"

namespace sluice {

// An SVG. Of each list only what stands near the circle is drawn. REQUIRES: the deadlock is of this program.
std::string DrawDeadlock(const Program& program, const Deadlock& deadlock);

}  // namespace sluice
