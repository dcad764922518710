// What of a stage's layout has to do with its gradients: where partials, sums and the optimizer's state lie, and what
// is exchanged. A part of stage_layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "stages/gradient_slices.h"
#include "stages/packer.h"
#include "stages/parameters.h"
#include "stages/stage_layout.h"

namespace sluice {

// The gradients of a stage in their flat order: of the parameters that are used once, then of the tied ones their first
// uses here, then further uses here. So the values of the parameters can lie in the same order. What shards sum
// together is a group of its own, and so is each use of a tied parameter: whoever exchanges them has the same slices.
class FlatGradients {
 public:
  struct Use {
    size_t parameter = 0;
    int use = 0;
    int layer = 0;
    bool first = true;  // of those here
  };

  FlatGradients(const std::vector<StageParameter>& parameters, int members, int64_t bucket_bytes);

  const std::vector<Use>& uses() const { return uses_; }  // the tensors of slices()
  const GradientSlices& slices() const { return slices_; }
  // The runs of first uses, by parameter.
  std::vector<SliceRun> RunsByParameter() const;
  // What comes first in the order: that of first uses.
  int64_t parameter_bytes() const;

 private:
  std::vector<Use> uses_;
  GradientSlices slices_;
};

// Norm partials of each parameter that the stage answers for, of each shard: which members make them, in order.
std::vector<std::vector<std::vector<NormRun>>> NormRunsByParameter(const LayerGraph& graph, NodeRange range,
                                                                   const StageOptions& options);

// Places values, and then, for training, everything else that comes with parameters.
class TrainingPlanner {
 public:
  // All outlive it.
  TrainingPlanner(const StageOptions& options, std::vector<ParameterPlace>* parameters, Packer* arena);

  void PlaceValues();
  // REQUIRES: PlaceValues() was called.
  TrainingLayout PlaceTraining(StageMemory* memory);

 private:
  void PlaceWhole();
  void PlaceSliced();
  void PlaceBucket(size_t bucket, const FlatGradients::Use& use, size_t piece);
  void PlaceSums();
  void PlaceUpdates();
  void PlaceSliceUpdates();

  int64_t share() const { return options_.gradient_groups / options_.members(); }  // of the groups, a member's

  const StageOptions& options_;
  std::vector<ParameterPlace>& parameters_;
  Packer& arena_;
  std::optional<FlatGradients> flat_;  // absent: one member, who sums everything
  TrainingLayout layout_;
  std::vector<int64_t> gradients_;  // of each parameter: where its sum lies
  // With several members:
  int64_t values_ = 0, own_ = 0;      // flat orders: of the parameters, of this member's partials
  std::vector<int> layer_of_bucket_;  // the last one that the backward pass comes to
  std::vector<int64_t> received_;     // of each bucket: where this member's slice of all partials comes; of each ...
  std::map<std::pair<size_t, size_t>, int64_t> pieces_;  // ... (parameter, piece) likewise
};

}  // namespace sluice
