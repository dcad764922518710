// What one rank holds of the model: its stages, and what the end of a step needs across them (norm partials, the
// decision).
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/device.h"
#include "stages/gradient_slices.h"
#include "stages/stage.h"

namespace sluice {

struct RankModelOptions {
  // Where the norm partials of a stage are. A place is a rank's in the gather of the norm.
  struct StageNorm {
    StageId stage;
    std::vector<int> places;    // of each member of the stage
    std::vector<NormRun> runs;  // in global order
  };
  std::vector<StageNorm> norms;  // of every stage of the model, in their order: the same on all ranks
  int place = 0;                 // this rank's
  float max_norm = 0;            // <= 0: no clipping
};

class RankModel {
 public:
  // `stream` is the rank's compute stream; it and the device outlive the model.
  static absl::StatusOr<std::unique_ptr<RankModel>> Create(Device* device, Stream* stream,
                                                           std::vector<std::unique_ptr<Stage>> stages,
                                                           RankModelOptions options);
  // What it allocates, from the norm partials of this rank and of all ranks.
  static constexpr int64_t Bytes(int64_t partials_mine, int64_t partials_all) {
    return (partials_mine + 2 * partials_all + 2 * 4 + 5 * 16) * 4;
  }
  // Waits for what has been issued: its memory goes.
  ~RankModel();

  // No rank holds two copies of a stage.
  Stage* stage(StageId id) const;
  absl::Span<const std::unique_ptr<Stage>> stages() const { return stages_; }

  // Step's end, in this order; tied gradients have been gathered before.
  // Sums gradients and writes this rank's norm partials, stages in their order.
  EventRef FinishGradients(absl::Span<const EventRef> after);
  // The all-gather of the norm: this rank's partials, and room for those of all ranks in the order of places.
  TensorView norm_mine() const { return norm_mine_; }
  TensorView norm_all() const { return norm_all_; }
  absl::Span<const int64_t> norm_parts() const { return norm_parts_; }  // bytes of each place's
  // Puts the gathered partials into global order, decides (StepControl), and updates the parameters of all stages.
  EventRef OptimizerStep(float learning_rate, int64_t update, absl::Span<const EventRef> after);
  // The decision of the last OptimizerStep, on the device: a StepControl. With post-validation that about the partials
  // known here, until Revise's takes its place.
  TensorView control() const { return control_; }

  // Post-validation, in this order; FinishGradients comes first.
  // Adds this rank's partials to `norms`, all ranks' in their order, of which those of the ranks before are there, and
  // decides from what is there.
  EventRef AddNorm(TensorView norms, absl::Span<const EventRef> after);
  // Keeps a copy of what it overwrites, and updates the parameters if what is known so far is neither scaled nor
  // skipped.
  EventRef GuessStep(float learning_rate, int64_t update);
  // The guess was wrong: goes back to the copy and does the step as control() says, which has been made the whole
  // decision.
  EventRef Revise();

 private:
  RankModel() = default;
  Device* device_ = nullptr;
  Stream* stream_ = nullptr;
  RankModelOptions options_;
  std::vector<std::unique_ptr<Stage>> stages_;  // in their order
  std::vector<int64_t> norm_parts_;
  std::vector<int64_t> begins_;                 // of each place's partials in the gathered ones; then their number
  std::vector<int64_t> next_;                   // of OrderNorms
  Buffer memory_;
  TensorView norm_mine_, norm_all_, norm_ordered_, control_, guess_;
  OptimizerStepArgs guessed_;  // with which GuessStep was called

  // Puts gathered partials, of the places up to `last`, into global order. Returns how many.
  int64_t OrderNorms(TensorView gathered, int last);
};

}  // namespace sluice
