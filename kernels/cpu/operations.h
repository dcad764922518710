// The operations of the CPU: each call issues one command on a CpuStream; the work is done by the functions of this
// folder (linear.h, attention.h, norm.h, ...), on the stream's team.
#pragma once

#include <memory>

#include "kernels/operations.h"

namespace sluice::cpu {

std::unique_ptr<Operations> NewOperations();

}  // namespace sluice::cpu
