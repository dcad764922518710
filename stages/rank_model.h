// What one rank holds of the model: its stages, and what the end of a step needs across them (norm partials, the decision).
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "stages/stage.h"

namespace sluice {

struct RankModelOptions {
  // Norm partials of every stage of the model, in stage order, and which rank holds it: the same on all ranks.
  struct StageNorm {
    StageId stage;
    PipelineRank rank;
    int64_t partials = 0;
  };
  std::vector<StageNorm> norms;
  PipelineRank rank;
  float max_norm = 0;  // <= 0: no clipping
};

class RankModel {
 public:
  // `stream` is the rank's compute stream; both outlive the model.
  static absl::StatusOr<std::unique_ptr<RankModel>> Create(Device* device, Stream* stream,
                                                           std::vector<std::unique_ptr<Stage>> stages,
                                                           RankModelOptions options);
  // What it allocates, from the norm partials of this rank and of all ranks.
  static constexpr int64_t Bytes(int64_t partials_mine, int64_t partials_all) {
    return (partials_mine + 2 * partials_all + 4 + 4 * 16) * 4;
  }
  // Waits for what has been issued: its memory goes.
  ~RankModel();

  Stage* stage(StageId id) const;
  absl::Span<const std::unique_ptr<Stage>> stages() const { return stages_; }

  // Step's end, in this order; tied gradients have been gathered before.
  // Sums gradients and writes this rank's norm partials, stages in ascending order.
  EventRef FinishGradients(absl::Span<const EventRef> after);
  // The all-gather of the norm: this rank's partials, and room for those of all ranks in rank order.
  TensorView norm_mine() const { return norm_mine_; }
  TensorView norm_all() const { return norm_all_; }
  // Puts the gathered partials into global order, decides (StepControl), and updates the parameters of all stages.
  EventRef OptimizerStep(float learning_rate, int64_t update, absl::Span<const EventRef> after);
  // The decision of the last OptimizerStep, on the device: a StepControl.
  TensorView control() const { return control_; }

 private:
  RankModel() = default;
  Device* device_ = nullptr;
  Stream* stream_ = nullptr;
  RankModelOptions options_;
  std::vector<std::unique_ptr<Stage>> stages_;
  Buffer memory_;
  TensorView norm_mine_, norm_all_, norm_ordered_, control_;
};

}  // namespace sluice
