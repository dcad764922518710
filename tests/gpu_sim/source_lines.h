// The lines of source behind an address of code, from the program's debug information (libbacktrace, which comes with
// GCC). Threads: one at a time.
#pragma once

#include <string>

namespace gpu_sim {

// Of the call that returns to `pc`, or the access that it follows: "kernels/cuda/norm.cu:88"; where functions are
// inlined, the innermost line of a kernel's source first: "kernels/cuda/row_group.h:44 in kernels/cuda/norm.cu:88". The
// wrappers of hardware features are passed over. Looked up once.
const std::string& PlaceOf(const void* pc);

}  // namespace gpu_sim
