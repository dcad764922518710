// What one rank sends and receives in a collective, as legs of one group. Pure.
#pragma once

#include <vector>

#include "kernels/cuda/nccl_rank.h"
#include "runtime/transport/request.h"

namespace sluice::internal {

// A gather whose parts are all of one size is NCCL's own.
inline bool IsEven(const Request& collective) {
  return collective.kind == Request::Kind::kAllGather && collective.parts.empty();
}

// `place`: of this rank among the members. In place of what is in `legs`; none of them is empty. Every rank sends to
// and receives from the others in the same order.
void MakeLegs(const Request& collective, int place, int members, std::vector<cuda::NcclLeg>* legs);

}  // namespace sluice::internal
