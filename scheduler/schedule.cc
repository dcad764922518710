#include "scheduler/schedule.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sluice {

Placement::Placement(int ranks, int stages, int copies, std::vector<PipelineRank> ranks_of_stages)
    : ranks_(ranks), stages_(stages), copies_(copies), ranks_of_stages_(std::move(ranks_of_stages)) {
  CHECK_EQ(ranks_of_stages_.size(), static_cast<size_t>(stages) * copies);
  for (PipelineRank rank : ranks_of_stages_) CHECK(rank.valid() && rank.value() < ranks) << rank;
}

Placement Placement::Loop(int ranks, int chunks) {
  std::vector<PipelineRank> map;
  for (int s = 0; s < ranks * chunks; ++s) map.emplace_back(s % ranks);
  return Placement(ranks, ranks * chunks, 1, std::move(map));
}

Placement Placement::V(int ranks) { return Wave(ranks, 1); }

Placement Placement::Wave(int ranks, int waves) {
  std::vector<PipelineRank> map;
  for (int s = 0; s < 2 * ranks * waves; ++s) {
    const int q = s % (2 * ranks);
    map.emplace_back(q < ranks ? q : 2 * ranks - 1 - q);
  }
  return Placement(ranks, 2 * ranks * waves, 1, std::move(map));
}

Placement Placement::Bidirectional(int ranks) {
  std::vector<PipelineRank> map;
  for (int s = 0; s < ranks; ++s) map.emplace_back(s);
  for (int s = 0; s < ranks; ++s) map.emplace_back(ranks - 1 - s);
  return Placement(ranks, ranks, 2, std::move(map));
}

int CopyOf(MicroBatch micro_batch, int micro_batches, int copies) {
  return static_cast<int>(int64_t{micro_batch.value()} * copies / micro_batches);
}

std::vector<int> InFlight(const Schedule& schedule) {
  return InFlight(schedule.pass, schedule.placement, schedule.ranks);
}

std::vector<int> InFlight(PassKind pass, const Placement& placement, const std::vector<std::vector<Action>>& ranks) {
  std::vector<int> count(static_cast<size_t>(placement.stages()) * placement.copies());
  std::vector<int> most(count.size(), pass == PassKind::kForwardOnly ? 1 : 0);
  if (pass == PassKind::kForwardOnly) return most;
  for (const auto& actions : ranks) {
    for (const Action& action : actions) {
      if (!IsCompute(action.kind) || (action.flags & kDiscarded)) continue;
      const size_t index = placement.Index(action.stage, action.copy);
      if (action.kind == ActionKind::kForward) most[index] = std::max(most[index], ++count[index]);
      if (action.kind == ActionKind::kBackward || action.kind == ActionKind::kWeightGradient) --count[index];
    }
  }
  return most;
}

std::string ToText(const std::vector<std::vector<Action>>& ranks) {
  std::string text;
  for (const auto& actions : ranks) {
    const char* separator = "";
    for (const Action& action : actions) {
      absl::StrAppend(&text, separator, ToString(action));
      separator = " ";
    }
    text += '\n';
  }
  return text;
}

}  // namespace sluice
