#include "stages/partition/stage_caps.h"

#include <algorithm>

namespace sluice::partition {

int64_t AskedBytes::operator()(int stage, int begin, int end) {
  if (!problem_.bytes) return 0;
  const auto layers = static_cast<uint64_t>(problem_.layers()) + 1;
  const auto [at, added] = known_.try_emplace((stage * layers + begin) * layers + end, 0);
  if (added) at->second = problem_.bytes(stage, begin, end);
  return at->second;
}

StageCaps::StageCaps(const PartitionProblem& problem, AskedBytes& bytes, int64_t extra)
    : limited_(!problem.caps.empty()), layers_(problem.layers()), dip_(problem.bytes_dip), bytes_(bytes) {
  if (!limited_) return;
  cap_.resize(problem.stages());
  for (int rank = 0; rank < problem.ranks(); ++rank) {
    cap_[problem.stages_of_rank[rank][0]] = problem.caps[rank] + extra;
  }
  breaks_from_.assign(problem.stages(), std::vector<int>(layers_ + 1, layers_ + 1));
  fits_until_.assign(problem.stages(), std::vector<int>(layers_ + 1, 0));
}

bool StageCaps::Fits(int stage, int begin, int end) {
  if (!limited_ || end <= fits_until_[stage][begin]) return true;
  if (end >= breaks_from_[stage][begin]) return false;
  const int64_t bytes = bytes_(stage, begin, end);
  if (Learn(stage, begin, end, bytes)) Tighten(stage, begin, end);
  return bytes <= cap_[stage];
}

bool StageCaps::Learn(int stage, int begin, int end, int64_t bytes) {
  if (dip_ < 0) return false;
  if (bytes > cap_[stage] + dip_) {
    std::vector<int>& breaks = breaks_from_[stage];
    for (int b = begin; b >= 0 && breaks[b] > end; --b) breaks[b] = end;
    return true;
  }
  if (bytes <= cap_[stage] - dip_) {
    std::vector<int>& fits = fits_until_[stage];
    for (int b = begin; b < end && fits[b] < end; ++b) fits[b] = end;
  }
  return false;
}

void StageCaps::Tighten(int stage, int begin, int end) {
  const auto breaks = [&](int at) { return Learn(stage, begin, at, bytes_(stage, begin, at)); };
  int fits = std::max(begin, fits_until_[stage][begin]);
  for (int step = 1; end - step > fits; step *= 2) {
    if (!breaks(end - step)) {
      fits = end - step;
    } else {
      end -= step;
    }
  }
  while (end - fits > 1) {
    const int middle = fits + (end - fits) / 2;
    (breaks(middle) ? end : fits) = middle;
  }
}

}  // namespace sluice::partition
