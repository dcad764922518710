#include "tools/launch/line_splitter.h"

#include <algorithm>
#include <utility>

namespace sluice::tools {

std::vector<std::string> LineSplitter::Add(absl::string_view bytes) {
  std::vector<std::string> lines;
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const size_t room = kLineBytesMax - begun_.size();
    const size_t taken = std::min({end, room, bytes.size()});
    begun_.append(bytes.data(), taken);
    if (taken == end || taken == room) lines.push_back(std::exchange(begun_, ""));
    bytes.remove_prefix(taken + (taken == end ? 1 : 0));
  }
  return lines;
}

std::vector<std::string> LineSplitter::Finish() {
  if (begun_.empty()) return {};
  return {std::exchange(begun_, "")};
}

}  // namespace sluice::tools
