// Memory that a launcher's kernels leave results for each other in. One per stream; each call may overwrite all of it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice::cuda {

struct Workspace {
  std::byte* data = nullptr;  // 16-byte aligned
  int64_t bytes = 0;
};

}  // namespace sluice::cuda
