// What kernels compute, as CPU code: a body does on the same buffers what one launch of the kernel of its name does.
// With Fidelity::kBodies it stands in for the kernel's threads, which would take too long for whole jobs; that the two
// agree is tested with every thread.
#pragma once

#include <string>

namespace gpu_sim {

using Body = void (*)(const void* arguments);  // the kernel's one argument

// For a static object of the body's file: `const bool registered = RegisterBody("NormForward", ...);`
bool RegisterBody(const char* kernel, Body body);
// Null: none.
Body FindBody(const std::string& kernel);

}  // namespace gpu_sim
