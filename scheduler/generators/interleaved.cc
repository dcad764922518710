#include "scheduler/generators/interleaved.h"

#include <algorithm>

#include "base/status.h"

namespace sluice {

absl::StatusOr<InterleavedOrder> MakeInterleavedOrder(absl::string_view name, const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams(name, params, 0));
  const int p = params.ranks, v = params.chunks, m = params.micro_batches, rounds = std::max(1, m / p);
  const auto error = [&](auto... words) { return absl::InvalidArgumentError(absl::StrCat(name, " ", words...)); };
  if (v < 2) return error("needs at least 2 stages per rank: ", HowToSetChunks(2));
  if (params.group_size == 0 && m % rounds != 0) {
    return error("splits ", m, " micro-batches on ", p, " ranks into m / p = ", rounds, " groups, which must be of ",
                 "one size: set a multiple of ", rounds,
                 " micro-batches, or a group size, which allows a shorter last ", "group of at least p");
  }
  const int n = params.group_size == 0 ? m / rounds : params.group_size;
  if (params.group_size != 0 && (n < p || (m % n != 0 && m % n < p))) {
    return error("needs groups of at least p = ", p, " micro-batches, the last one too; groups of ", n, " of ", m,
                 " leave one of ",
                 m < n        ? m
                 : m % n == 0 ? n
                              : m % n);
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
