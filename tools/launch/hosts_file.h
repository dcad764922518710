// The file of `sluice launch --hosts`: a line "HOST [processes=N]" for each host; "#" begins a comment. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice::tools {

struct HostLine {
  std::string host;
  int processes = 1;
};

// In the file's order; at least one. INVALID_ARGUMENT: names `file` and the line.
absl::StatusOr<std::vector<HostLine>> ParseHosts(absl::string_view text, absl::string_view file);

}  // namespace sluice::tools
