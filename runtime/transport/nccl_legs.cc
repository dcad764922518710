#include "runtime/transport/nccl_legs.h"

namespace sluice::internal {

void MakeLegs(const Request& collective, int place, int members, std::vector<cuda::NcclLeg>* legs) {
  const bool gathers = collective.kind == Request::Kind::kAllGather;
  const int64_t own = collective.parts[place];
  const std::byte* from = collective.mine.data;
  std::byte* to = collective.all.data;
  legs->clear();
  for (int peer = 0; peer < members; ++peer) {
    const int64_t sent = gathers ? own : collective.parts[peer], received = gathers ? collective.parts[peer] : own;
    if (peer == place) {
      if (own > 0 && from != to) legs->push_back({.from = from, .to = to, .bytes = own, .peer = peer});
    } else {
      if (sent > 0) legs->push_back({.from = from, .bytes = sent, .peer = peer});
      if (received > 0) legs->push_back({.to = to, .bytes = received, .peer = peer});
    }
    if (!gathers) from += sent;
    to += received;
  }
}

}  // namespace sluice::internal
