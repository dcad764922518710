// The two short forms in which Slurm writes lists into the environment. Pure.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice::tools {

// The first host of a node list: "node03" of "node[03-05,7],login1", "a1b4" of "a[1-2]b[4,6]".
// INVALID_ARGUMENT: it isn't one.
absl::StatusOr<std::string> FirstOfNodeList(absl::string_view list);

// The number at place `node` of counts by node: of "4(x2),3" it is 4, 4, 3. INVALID_ARGUMENT: it isn't such a list, or
// is shorter.
absl::StatusOr<int> CountOfNode(absl::string_view counts, int node);

}  // namespace sluice::tools
