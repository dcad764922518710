#include "tests/gpu_sim/source_lines.h"

#include <backtrace.h>

#include <array>
#include <map>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace gpu_sim {
namespace {

// Between a kernel and the simulator.
constexpr std::array kWrappers = {"include/device_side.h", "kernels/cuda/simt.h", "kernels/cuda/launch.h"};

struct Search {
  std::vector<std::string> lines;
};

int OnFrame(void* data, uintptr_t /*pc*/, const char* file, int line, const char* /*function*/) {
  if (file == nullptr) return 0;
  for (const char* wrapper : kWrappers) {
    if (absl::EndsWith(file, wrapper)) return 0;
  }
  static_cast<Search*>(data)->lines.push_back(absl::StrCat(file, ":", line));
  return 0;
}

void OnError(void* /*data*/, const char* /*message*/, int /*error*/) {}

}  // namespace

const std::string& PlaceOf(const void* pc) {
  static auto* const known = new std::map<const void*, std::string>;
  static backtrace_state* const state = backtrace_create_state(nullptr, 0, OnError, nullptr);
  const auto [place, added] = known->try_emplace(pc);
  if (added) {
    Search search;
    backtrace_pcinfo(state, reinterpret_cast<uintptr_t>(pc) - 1, OnFrame, OnError, &search);
    place->second = search.lines.empty() ? absl::StrCat("0x", absl::Hex(reinterpret_cast<uintptr_t>(pc)))
                                         : absl::StrJoin(search.lines, " in ");
  }
  return place->second;
}

}  // namespace gpu_sim
