// What a collective does to memory, as data: the copies that bring every member's parts to their places.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/ids.h"
#include "kernels/tensor.h"

namespace sluice::internal {

// One member's end of a collective, in the group's order. `parts`: of an all-to-all.
struct Member {
  WorldRank rank;
  TensorView mine, all;
  absl::Span<const int64_t> parts;
};

struct Copy {
  std::byte* to;
  const std::byte* from;
  int64_t bytes;
};

// Both append to `copies`, none of them empty. INVALID_ARGUMENT: the members' sizes don't fit together.
absl::Status PlanAllGather(const std::vector<Member>& members, std::vector<Copy>* copies);
absl::Status PlanAllToAll(const std::vector<Member>& members, std::vector<Copy>* copies);

}  // namespace sluice::internal
