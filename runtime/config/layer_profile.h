// Measured costs of a job's layers: what `sluice profile` writes (text form of proto/profile.proto) and a job's
// layout.profile reads. A plain value.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/config/job.h"
#include "stages/cost_model.h"

namespace sluice {

struct ProfiledLayer {
  std::string name;
  LayerTimes times;  // of one micro-batch
};

struct LayerProfile {
  std::string processor;
  // What it was measured for.
  std::string model;
  uint64_t graph_hash = 0;
  int64_t rows = 0;  // of a micro-batch
  int64_t sequence = 0;
  std::string precision;
  int threads_per_rank = 0;
  std::string recompute;
  int64_t tp = 1;
  bool sequence_parallel = false;

  std::vector<ProfiledLayer> layers;  // as the nodes of the graph
  double optimizer_ns_per_parameter = 0;
  int64_t hand_over_ns = 0;
};

// Without times: what a profile of this job is for. REQUIRES: threads_per_rank is settled.
LayerProfile EmptyProfileOf(const JobConfig& job);

// INVALID_ARGUMENT names what the profile was measured for and the job doesn't have, and how to make one that fits.
// REQUIRES: threads_per_rank is settled.
absl::Status CheckFits(const LayerProfile& profile, const JobConfig& job);

std::string ToText(const LayerProfile& profile);

// `file` is for errors: "<file>:<line>: ...".
absl::StatusOr<LayerProfile> LayerProfileFromText(absl::string_view text, const std::string& file);
absl::StatusOr<LayerProfile> ReadLayerProfile(const std::string& path);

}  // namespace sluice
