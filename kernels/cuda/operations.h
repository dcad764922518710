// The operations of a GPU: each call issues one command on a CudaStream; the work is done by the launchers of this
// folder (norm.h, attention.h, ...).
#pragma once

#include <memory>

#include "kernels/cuda/matmul.h"
#include "kernels/operations.h"

namespace sluice::cuda {

// `matmul` outlives it.
std::unique_ptr<Operations> NewOperations(Matmul* matmul);

}  // namespace sluice::cuda
