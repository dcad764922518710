#include "tests/gpu_sim/bodies.h"

#include <map>

#include "base/check.h"

namespace gpu_sim {
namespace {

std::map<std::string, Body>& AllBodies() {
  static auto* bodies = new std::map<std::string, Body>;
  return *bodies;
}

}  // namespace

bool RegisterBody(const char* kernel, Body body) {
  CHECK(AllBodies().emplace(kernel, body).second) << "two bodies for kernel " << kernel;
  return true;
}

Body FindBody(const std::string& kernel) {
  const auto found = AllBodies().find(kernel);
  return found != AllBodies().end() ? found->second : nullptr;
}

}  // namespace gpu_sim
