#include "stages/partition/partition.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "stages/partition/evaluate.h"

namespace sluice {
namespace partition {

StageTimes::StageTimes(const PartitionProblem& problem) : problem_(problem) {
  for (const std::vector<int64_t>& row : problem.layer_ns) {
    prefix_.emplace_back(row.size() + 1, 0);
    std::partial_sum(row.begin(), row.end(), prefix_.back().begin() + 1);
  }
}

int64_t StageTimes::operator()(int stage, int begin, int end) const {
  int64_t time = Compute(stage, begin, end);
  if (!problem_.cut_ns.empty()) {
    if (begin > 0) time += problem_.cut_ns[begin - 1];
    if (end < problem_.layers()) time += problem_.cut_ns[end - 1];
  }
  return time;
}

Score Judge(const PartitionProblem& problem, const StageTimes& times, const std::vector<int>& cuts,
            PartitionResult* result) {
  Score score;
  for (int rank = 0; rank < problem.ranks(); ++rank) {
    int64_t load = 0, bytes = 0;
    for (const int stage : problem.stages_of_rank[rank]) {
      load += times(stage, cuts[stage], cuts[stage + 1]);
      if (problem.bytes) bytes += problem.bytes(stage, cuts[stage], cuts[stage + 1]);
    }
    if (!problem.caps.empty()) score.overflow_bytes += std::max<int64_t>(0, bytes - problem.caps[rank]);
    score.load_ns_max = std::max(score.load_ns_max, load);
    score.load_squares += static_cast<Wide>(load) * load;
    score.bytes_max = std::max(score.bytes_max, bytes);
    if (result != nullptr) {
      result->load_ns.push_back(load);
      result->bytes.push_back(bytes);
    }
  }
  if (result != nullptr) {
    result->cuts = cuts;
    result->load_ns_max = score.load_ns_max;
  }
  return score;
}

}  // namespace partition

namespace {

// The mean of what must be computed and of the cheapest transfers, or the longest layer.
int64_t LoadBound(const PartitionProblem& problem) {
  int64_t sum = 0, longest = 0, copies = 0;
  for (int layer = 0; layer < problem.layers(); ++layer) {
    int64_t least = problem.layer_ns[0][layer];
    for (const std::vector<int64_t>& row : problem.layer_ns) least = std::min(least, row[layer]);
    sum += least;
    longest = std::max(longest, least);
  }
  std::vector<int64_t> transfers = problem.cut_ns;  // each is paid on both sides
  std::sort(transfers.begin(), transfers.end());
  transfers.resize(std::min<size_t>(transfers.size(), problem.stages() - 1));
  for (const int64_t transfer : transfers) sum += 2 * transfer;
  for (const std::vector<int>& stages : problem.stages_of_rank) copies += static_cast<int64_t>(stages.size());
  copies /= problem.stages();  // bidirectional placements compute every stage on two ranks
  return std::max((sum * copies + problem.ranks() - 1) / problem.ranks(), longest);
}

absl::Status OverCaps(const PartitionProblem& problem, const PartitionResult& nearest, absl::string_view what) {
  std::string message = absl::StrCat(what, ":");
  for (int rank = 0; rank < problem.ranks(); ++rank) {
    const bool over = nearest.bytes[rank] > problem.caps[rank];
    absl::StrAppend(&message, rank == 0 ? " " : ", ", "rank ", rank, " needs ", nearest.bytes[rank], " bytes of ",
                    problem.caps[rank], over ? " (over)" : "");
  }
  absl::StrAppend(&message, "; use more ranks, more micro_batches of fewer rows, or recomputation");
  return absl::ResourceExhaustedError(message);
}

bool OneStagePerRank(const PartitionProblem& problem) {
  if (problem.stages() != problem.ranks()) return false;
  return std::all_of(problem.stages_of_rank.begin(), problem.stages_of_rank.end(),
                     [](const auto& stages) { return stages.size() == 1; });
}

absl::Status CheckProblem(const PartitionProblem& problem) {
  const int stages = problem.stages();
  CHECK(stages > 0 && (problem.layer_ns.size() == 1 || static_cast<int>(problem.layer_ns.size()) == stages));
  CHECK(problem.cut_ns.empty() || static_cast<int>(problem.cut_ns.size()) == problem.layers() - 1);
  CHECK(problem.caps.empty() || (static_cast<int>(problem.caps.size()) == problem.ranks() && problem.bytes));
  if (stages <= problem.layers()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(stages, " stages are more than ", problem.layers(), " layers: a stage would be empty"));
}

}  // namespace

int PartitionProblem::stages() const {
  int stages = 0;
  for (const std::vector<int>& on_rank : stages_of_rank) {
    for (const int stage : on_rank) stages = std::max(stages, stage + 1);
  }
  return stages;
}

int64_t PartitionProblem::StageTime(int stage, int begin, int end) const {
  return partition::StageTimes(*this)(stage, begin, end);
}

absl::StatusOr<PartitionResult> Partition(const PartitionProblem& problem) {
  RETURN_IF_ERROR(CheckProblem(problem));
  const partition::StageTimes times(problem);
  PartitionResult result;
  std::vector<int> cuts;
  if (OneStagePerRank(problem)) {
    cuts = partition::ExactCuts(problem, times);
    result.exact = true;
  } else {
    partition::SearchResult found = partition::SearchCuts(problem, times, problem.enumerated_max);
    cuts = std::move(found.cuts);
    result.exact = found.exact;
  }
  const bool none = cuts.empty();
  if (none) cuts = partition::NearestToCaps(problem);
  const partition::Score score = partition::Judge(problem, times, cuts, &result);
  result.load_bound_ns = LoadBound(problem);
  if (none || score.overflow_bytes > 0) {
    return OverCaps(problem, result,
                    absl::StrCat(result.exact ? "no cut of " : "no cut was found of ", problem.layers(),
                                 " layers into ", problem.stages(), " stages that keeps to the memory limit; nearest"));
  }
  return result;
}

absl::StatusOr<PartitionResult> Evaluate(const PartitionProblem& problem, const std::vector<int>& cuts) {
  RETURN_IF_ERROR(CheckProblem(problem));
  bool valid =
      static_cast<int>(cuts.size()) == problem.stages() + 1 && cuts.front() == 0 && cuts.back() == problem.layers();
  for (size_t i = 1; valid && i < cuts.size(); ++i) valid = cuts[i - 1] < cuts[i];
  if (!valid) {
    return absl::InvalidArgumentError(absl::StrCat("cuts must give each of ", problem.layers(), " layers to one of ",
                                                   problem.stages(), " stages, and leave none empty"));
  }
  PartitionResult result;
  const partition::Score score = partition::Judge(problem, partition::StageTimes(problem), cuts, &result);
  result.load_bound_ns = LoadBound(problem);
  if (score.overflow_bytes > 0) return OverCaps(problem, result, "the given cuts don't keep to the memory limit");
  return result;
}

std::function<int64_t(int, int, int)> BytesOf(LayerBytes layers) {
  return [layers = std::move(layers)](int stage, int begin, int end) {
    int64_t fixed = 0, stash = 0, working = 0;
    for (int layer = begin; layer < end; ++layer) {
      fixed += layers.fixed[layer];
      stash += layers.stash[layer];
      if (!layers.working.empty()) working = std::max(working, layers.working[layer]);
    }
    return fixed + layers.in_flight[stage] * stash + working + (layers.overhead.empty() ? 0 : layers.overhead[stage]);
  };
}

}  // namespace sluice
