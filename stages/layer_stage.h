// LayerStage: a Stage made of consecutive nodes of a layer graph. One allocation holds parameters, gradients, optimizer
// state, stash slots and scratch, as stage_layout.h plans; after creation nothing is allocated.
//
// Ownership: device and stream belong to the caller and outlive the stage; message slots are the caller's.
// Parameters begin the same on every rank, for every cut and every split over tensor-parallel shards: their random
// numbers are keyed by seed, global name and index in the complete tensor.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/device.h"
#include "stages/graph.h"
#include "stages/layer.h"
#include "stages/parameters.h"
#include "stages/stage.h"
#include "stages/stage_layout.h"
#include "stages/tensor_group.h"

namespace sluice {

class LayerStage final : public Stage {
 public:
  // Allocates and issues the initialization. RESOURCE_EXHAUSTED says how much it wanted, INVALID_ARGUMENT which layer
  // can't be split over the shards. `group` is that of options.tensor_parallel, whose shards all do the same calls, and
  // outlives the stage; null for one shard alone.
  // REQUIRES: a valid graph.
  static absl::StatusOr<std::unique_ptr<LayerStage>> Create(Device* device, Stream* stream, const LayerGraph& graph,
                                                            StageId id, NodeRange range, const StageOptions& options,
                                                            TensorGroup* group = nullptr);

  // Waits for what has been issued: its memory goes.
  ~LayerStage() override { stream_->Drain(); }

  StageId id() const override { return id_; }
  EventRef Forward(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after) override;
  // REQUIRES: BackwardForm::kSplit.
  EventRef InputGradient(const MicroBatchInfo& info, const StageSlots& slots,
                         absl::Span<const EventRef> after) override;
  EventRef WeightGradient(const MicroBatchInfo& info, const StageSlots& slots,
                          absl::Span<const EventRef> after) override;
  EventRef Backward(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after) override;

  absl::Span<const GradientReduction> reductions() const override { return reductions_; }
  absl::Span<const SliceGather> gathers() const override { return gathers_; }
  absl::Span<const TiedGradient> tied() const override { return tied_; }
  int64_t norm_partials() const override { return norm_partials_; }
  EventRef FinishGradients(TensorView partials, absl::Span<const EventRef> after) override;
  EventRef OptimizerStep(const OptimizerStepArgs& args, absl::Span<const EventRef> after) override;
  EventRef FinishParameters(absl::Span<const EventRef> after) override;
  void KeepState() override;
  void RollBack() override;

  TensorView losses() const override;
  TensorView logits() const override { return logits_; }
  TensorView drawn() const override;

  const StageMemory& memory() const { return layout_.memory; }
  // Of every parameter the stage holds, this shard's part of it, in layer order.
  std::vector<ParameterSpec> parameters() const;

  // Elements of this shard's part of a parameter whose gradient, m and v are here: all of them, or with ZeRO-1 this
  // member's. Ascending.
  struct Elements {
    int64_t begin = 0;
    int64_t count = 0;
  };
  std::vector<Elements> HeldState(absl::string_view name) const;
  // What a checkpoint has of this stage: parameters, m and v. All stages of all shards, copies and replicas have
  // together every element of the model's once: of several that hold the same, the first one, or where each updates a
  // slice, each its own; a tied tensor is with the stage of its first use. REQUIRES: planned for training.
  struct OwnState {
    StateKind kind = StateKind::kParameter;
    int parameter = 0;  // in the order of parameters()
    PartRange range;
  };
  std::vector<OwnState> OwnedState() const;
  // Issues a copy of it on another stream than the stage's, for which what the stage has issued so far is done; until
  // the copy has ended no OptimizerStep may begin. `host`: range.count elements.
  void CopyToHost(const OwnState& state, Stream* stream, float* host) const;
  // A hash of the values of each parameter, this shard's part, in the order of parameters(): what two holders of a
  // stage must have in common. Cheap: made on the device. `hashes` stays as it is until the event is done. REQUIRES:
  // planned for training; one element a parameter.
  EventRef HashParameters(absl::Span<uint64_t> hashes);
  // Copies a state of a parameter, this shard's part and of that what is here, to or from the host, which stays as it
  // is until the event is done. NOT_FOUND: no such parameter here. INVALID_ARGUMENT: another number of elements.
  absl::StatusOr<EventRef> Read(StateKind kind, absl::string_view name, absl::Span<float> host);
  absl::StatusOr<EventRef> Write(StateKind kind, absl::string_view name, absl::Span<const float> host);
  // Of generation, in the stage that ends in the loss, else nothing: how a sequence draws from now on, and which tokens
  // it has (SeenWords of them, as in SampleTokensArgs). The arguments stay as they are until the event is done.
  EventRef BeginSequence(int64_t sequence, const SamplingRules& rules, absl::Span<const uint32_t> seen);

 private:
  using Phase = LayerPass;
  static constexpr int kMaxGroups = 64;  // of SumInOrder

  LayerStage(Device* device, Stream* stream, const LayerGraph& graph, StageId id, NodeRange range, StageOptions options,
             TensorGroup* group);
  void MakeLayers(const LayerGraph& graph, NodeRange range);
  void MakeExchanges();
  void Initialize();
  void InitializeNormal(const ParameterPlace& place);
  void Pack(const ParameterPlace& place);
  // Calls copy(state, kept copy of it) for all that the optimizer overwrites.
  template <class Copy>
  void ForEachKept(const Copy& copy);

  void Tell(size_t layer, Phase phase) const;
  // The end of a step.
  void SumUsesAndGroups(const SumPlace& place);
  void SumOverShards(const SumPlace& place);
  void WriteNormPartials(TensorView partials);
  void GatherNormPartials(TensorView gathered, TensorView partials);

  EventRef EndOfAction();
  void WaitFor(absl::Span<const EventRef> after);
  void CopyBatch(const MicroBatchInfo& info, const StageSlots& slots);
  LayerCall CallFor(size_t layer, const MicroBatchInfo& info, const StageSlots& slots, Phase phase) const;
  void SetLogits(const MicroBatchInfo& info, LayerCall* call) const;
  void SetBoundaries(size_t layer, const MicroBatchInfo& info, const StageSlots& slots, Phase phase,
                     LayerCall* call) const;
  BatchViews Batch(const MicroBatchInfo& info, const StageSlots& slots) const;
  DrawViews Draw(const MicroBatchInfo& info, const StageSlots& slots) const;
  bool TokensComeTo(const StageSlots& slots) const;
  PackedFor packed_for() const {
    return options_.purpose == StagePurpose::kTraining ? PackedFor::kTraining : PackedFor::kInference;
  }
  void LayerInputGradient(size_t layer, const MicroBatchInfo& info, const StageSlots& slots);
  void MarkReady(size_t layer);
  void LayerWeightGradient(size_t layer, const MicroBatchInfo& info, const StageSlots& slots);

  std::byte* At(const Place& place, const StageSlots& slots) const;
  TensorView Floats(int64_t offset, int64_t count) const;
  TensorView Integers(int64_t offset, const Shape& shape) const;
  TensorView Floats(const ArenaPiece& piece) const { return Floats(piece.offset, piece.bytes / 4); }
  // Where the partial sum of (use, group) is kept.
  TensorView Partial(const ParameterPlace& place, int use, int group) const;
  bool updates_slices() const { return options_.zero1 && options_.members() > 1; }
  absl::StatusOr<int> Find(StateKind kind, absl::string_view name, size_t elements) const;
  // Calls copy(device, first element) for each piece of a parameter's state that is here.
  template <class Copy>
  void ForEachPiece(StateKind kind, int parameter, const Copy& copy) const;

  Device* const device_;
  const Operations& operations_;
  Stream* const stream_;
  const StageId id_;
  const size_t first_node_;
  const StageOptions options_;
  TensorGroup* const group_;
  const DType compute_;
  const int64_t vocabulary_;
  StageLayout layout_;
  Buffer arena_;
  std::vector<std::unique_ptr<Layer>> layers_;
  std::vector<int64_t> boundaries_;  // columns of what enters each layer and leaves the last
  std::vector<GradientReduction> reductions_;
  std::vector<SliceGather> gathers_;
  std::vector<int64_t> norm_part_bytes_;  // of each shard, once gathered
  std::vector<TiedGradient> tied_;
  int64_t norm_partials_ = 0;
  TensorView logits_;
};

}  // namespace sluice
