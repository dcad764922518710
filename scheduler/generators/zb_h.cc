// ZB-H1 and ZB-H2 (Qi et al. 2023, zero-bubble pipeline parallelism): the backward pass is split, and weight gradients
// fill what would be bubbles. Rank r keeps k*r of them back, so that all ranks hold equally many micro-batches: p with
// H1 (k = 1), 2p-1 with H2 (k = 2, no bubble in span).
#include <algorithm>

#include "base/status.h"
#include "scheduler/generators/common.h"

namespace sluice {
namespace {

absl::StatusOr<Schedule> GenerateHandcrafted(const char* name, int k, const GeneratorParams& params) {
  RETURN_IF_ERROR(CheckParams(name, params, 1));
  const int p = params.ranks, m = params.micro_batches;
  Schedule schedule = EmptySchedule(name, Placement::Loop(p, 1), m);
  for (int r = 0; r < p; ++r) {
    auto& actions = schedule.ranks[r];
    const int warm_up = std::min(m, k * (p - 1 - r)), kept_back = k * r;
    for (int i = 0; i < warm_up; ++i) actions.push_back(Forward(StageId(r), MicroBatch(i)));
    for (int i = 0; i < m; ++i) {
      if (warm_up + i < m) actions.push_back(Forward(StageId(r), MicroBatch(warm_up + i)));
      actions.push_back(InputGradient(StageId(r), MicroBatch(i)));
      if (i >= kept_back) actions.push_back(WeightGradient(StageId(r), MicroBatch(i - kept_back)));
    }
    for (int i = std::max(0, m - kept_back); i < m; ++i) actions.push_back(WeightGradient(StageId(r), MicroBatch(i)));
  }
  return schedule;
}

}  // namespace

absl::StatusOr<Schedule> GenerateZBH1(const GeneratorParams& params) { return GenerateHandcrafted("zb_h1", 1, params); }
absl::StatusOr<Schedule> GenerateZBH2(const GeneratorParams& params) { return GenerateHandcrafted("zb_h2", 2, params); }

}  // namespace sluice
