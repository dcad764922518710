#include "tests/gpu_sim/call_log.h"

#include <dlfcn.h>
#include <execinfo.h>

#include <algorithm>

#include "absl/debugging/symbolize.h"
#include "absl/strings/str_cat.h"

namespace gpu_sim {
namespace {

std::vector<void*> FramesOf(const CallLog::Stack& stack) {
  constexpr int kOwnFrames = 16;  // more than lie between the program's call and this function
  std::vector<void*> frames(stack.depth + kOwnFrames);
  frames.resize(backtrace(frames.data(), static_cast<int>(frames.size())));
  const auto first = std::find(frames.begin(), frames.end(), stack.return_address);
  frames.erase(frames.begin(), first);
  frames.resize(std::min<size_t>(frames.size(), stack.depth));
  return frames;
}

// Addresses are relative to their library, the same in each run.
std::string NamesOf(const std::vector<void*>& frames) {
  std::string names;
  for (void* frame : frames) {
    char name[512];
    char* address = static_cast<char*>(frame);
    Dl_info library = {};
    dladdr(address, &library);
    // A return address may lie behind its function's end.
    const bool known = absl::Symbolize(address - 1, name, sizeof(name));
    absl::StrAppend(&names, " < ", known ? name : "?", "@", absl::Hex(address - static_cast<char*>(library.dli_fbase)));
  }
  return names;
}

}  // namespace

uint32_t CallLog::Add(const char* name, const std::source_location& site, int device, int stream, Stack stack) {
  uint32_t number = 0;
  if (stack.depth > 0) {
    const std::vector<void*> frames = FramesOf(stack);
    const auto [known, added] = stack_numbers_.emplace(frames, static_cast<uint32_t>(stacks_.size()));
    if (added) stacks_.push_back(NamesOf(frames));
    number = known->second;
  }
  calls_.push_back({name, site, device, stream, number});
  return static_cast<uint32_t>(calls_.size()) - 1;
}

std::string CallLog::Site(uint32_t call) const {
  const Call& made = calls_[call];
  return absl::StrCat(made.site.file_name(), ":", made.site.line(), stacks_[made.stack]);
}

std::string CallLog::Describe(uint32_t call) const {
  const Call& made = calls_[call];
  std::string text = absl::StrCat(made.name, " at ", Site(call));
  if (made.stream != kNoStream) absl::StrAppend(&text, " on stream ", made.stream, " of device ", made.device);
  return text;
}

}  // namespace gpu_sim
