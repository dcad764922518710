// Bytes as they come in, whole lines out.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace sluice::tools {

class LineSplitter {
 public:
  // A longer line comes in pieces of this size, so that nobody can fill the memory.
  static constexpr size_t kLineBytesMax = 64 << 10;

  // The lines that end in `bytes`, without their ends.
  std::vector<std::string> Add(absl::string_view bytes);
  // What stands after the last line's end, if anything. Nothing comes after it.
  std::vector<std::string> Finish();

 private:
  std::string begun_;
};

}  // namespace sluice::tools
