// A stage small enough to check by hand, with everything that can go wrong in moving data: y = a x + c (+ t) on
// unsigned integers, so every number is exact. It keeps its input in its stash and compares the message slots against
// it, so a slot that was given away too early is found. `t` is a tied tensor of the first and the last stage.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <vector>

#include "base/world.h"
#include "scheduler/program.h"
#include "stages/gradient_slices.h"
#include "stages/stage.h"
#include "tests/sim/test_device.h"

namespace sluice {

inline constexpr int64_t kAffineWords = 6;

struct AffineOptions {
  StageId id;
  int stages = 1;
  int micro_batches = 1;
  int replica = 0;  // each has one gradient group
  int replicas = 1;
  bool zero1 = false;
  int stash_slots = 0;
  int gradient_stash_slots = 0;
  bool tied = false;
  float max_norm = 0;            // > 0: an update depends on the scale of the gradients, and not on their norm
  std::set<int> poisoned_steps;  // in which the stage's norm is not finite
  Nanoseconds forward_cost = 0;  // virtual time of F; I and W cost the same each, B twice
};

class AffineStage final : public Stage {
 public:
  static absl::StatusOr<std::unique_ptr<AffineStage>> Create(Device* device, TestStream* stream,
                                                             const AffineOptions& options);

  StageId id() const override { return options_.id; }
  EventRef Forward(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after) override;
  EventRef InputGradient(const MicroBatchInfo& info, const StageSlots& slots,
                         absl::Span<const EventRef> after) override;
  EventRef WeightGradient(const MicroBatchInfo& info, const StageSlots& slots,
                          absl::Span<const EventRef> after) override;
  EventRef Backward(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after) override;
  absl::Span<const GradientReduction> reductions() const override { return reductions_; }
  absl::Span<const SliceGather> gathers() const override { return gathers_; }
  absl::Span<const TiedGradient> tied() const override { return tied_; }
  int64_t norm_partials() const override { return slice_.size(); }
  EventRef FinishGradients(TensorView partials, absl::Span<const EventRef> after) override;
  EventRef OptimizerStep(const OptimizerStepArgs& args, absl::Span<const EventRef> after) override;
  EventRef FinishParameters(absl::Span<const EventRef> after) override;
  void KeepState() override;
  void RollBack() override;
  TensorView losses() const override { return losses_; }
  TensorView logits() const override { return logits_; }
  TensorView drawn() const override { return {}; }

  // a, c, t. REQUIRES: no work is issued.
  std::vector<uint32_t> parameters() const { return {numbers_[0], numbers_[1], numbers_[2]}; }

 private:
  // Of some numbers that the replicas share.
  struct Slice {
    int64_t begin = 0, end = 0;
    int64_t size() const { return end - begin; }
  };
  static Slice SliceOf(int64_t numbers, int replica, int replicas) {
    return {numbers * replica / replicas, numbers * (replica + 1) / replicas};
  }

  AffineStage(TestStream* stream, const AffineOptions& options)
      : stream_(stream),
        options_(options),
        slice_(SliceOf(2, options.replica, options.replicas)),
        tied_slice_(SliceOf(1, options.replica, options.replicas)) {}
  void MakeExchanges();
  bool first() const { return options_.id.value() == 0; }
  bool last() const { return options_.id.value() + 1 == options_.stages; }
  EventRef Gradient(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after, bool input,
                    bool weight);

  TestStream* const stream_;
  const AffineOptions options_;
  const Slice slice_, tied_slice_;  // whose gradients this replica sums: of a and c, and of t
  Buffer memory_;
  uint32_t* numbers_ = nullptr;         // a, c, t, then their summed gradients, then a copy of a, c, t
  bool poisoned_ = false;               // of the step that runs
  uint32_t* gradients_ = nullptr;       // of a, c, t, by this replica
  uint32_t* received_ = nullptr;        // [replicas][slice]: of a and c, by all of them
  uint32_t* tied_received_ = nullptr;   // [uses][replicas][slice]: of t
  uint32_t* stash_ = nullptr;           // [slots][words]
  uint32_t* gradient_stash_ = nullptr;  // [slots][words]
  TensorView losses_, logits_;
  std::vector<TiedGradient> tied_;
  std::vector<std::vector<int64_t>> parts_;  // of reductions_
  std::vector<GradientReduction> reductions_;
  std::vector<SliceGather> gathers_;
};

// Norm partials of stages in global order: one of a, one of c.
std::vector<NormRun> AffineNormRuns(int replicas);

// The same training without any pipeline: plain loops over stages and micro-batches.
struct AffineReference {
  std::vector<std::vector<uint32_t>> parameters;  // per stage: a, c, t
  // The norm above which gradients are scaled, and the steps to skip.
  AffineReference(int stages, bool tied, float max_norm = 0, std::set<int> poisoned = {});
  // The loss of one micro-batch.
  float Forward(const MicroBatchInfo& info) const;
  // Returns the losses of the micro-batches; `norm` becomes the gradient norm.
  std::vector<float> Step(absl::Span<const MicroBatchInfo> infos, float learning_rate, float* norm);

 private:
  std::vector<std::vector<uint32_t>> Activations(const MicroBatchInfo& info) const;
  const bool tied_;
  const float max_norm_;
  const std::set<int> poisoned_;
};

}  // namespace sluice
