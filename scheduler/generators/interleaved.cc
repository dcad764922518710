#include "scheduler/generators/interleaved.h"

#include <algorithm>

#include "base/status.h"

namespace sluice {

absl::StatusOr<InterleavedOrder> MakeInterleavedOrder(absl::string_view name, const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams(name, params, 0));
  const int p = params.ranks, v = params.chunks, m = params.micro_batches, rounds = std::max(1, m / p);
  const auto error = [&](auto... words) { return absl::InvalidArgumentError(absl::StrCat(name, " ", words...)); };
  if (v < 2) return error("needs at least 2 chunks per rank");
  if (params.group_size == 0 && m % rounds != 0) {
    return error("splits ", m, " micro-batches on ", p, " ranks into ", rounds, " groups, which must be of one size; ",
                 "give a group size to have a shorter last group");
  }
  const int n = params.group_size == 0 ? m / rounds : params.group_size;
  if (params.group_size != 0 && (n < p || (m % n != 0 && m % n < p))) {
    return error("needs groups of at least ", p, " micro-batches, the last one too, not ", n, " and then ", m % n);
  }
  InterleavedOrder order{.group_size = std::min(n, m)};
  order.steps.reserve(static_cast<size_t>(m) * v);
  for (int first = 0; first < m; first += n) {
    for (int chunk = 0; chunk < v; ++chunk) {
      for (int i = first; i < std::min(m, first + n); ++i) order.steps.push_back({chunk, MicroBatch(i)});
    }
  }
  return order;
}

}  // namespace sluice
