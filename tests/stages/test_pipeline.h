// All stages of a model on one device, connected by hand: what the executor does, without one. Forward of all
// micro-batches, then backward of all, then the end of the step. Fresh memory holds NaNs, so that reading what nobody
// wrote shows.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/world.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/device.h"
#include "stages/graph.h"
#include "stages/layer_stage.h"
#include "stages/rank_model.h"
#include "tests/stages/reference_model.h"

namespace sluice {

struct TestPipelineOptions {
  std::vector<size_t> cuts;  // first node of each stage but the first
  StageOptions stage;        // slots and micro-batches are set from micro_batches
  int micro_batches = 1;
  int threads = 1;
  float max_norm = 0;
  float learning_rate = 1e-2f;
  // Of a shard of a tensor-parallel group, whose place is in `stage`; else null and a world of its own.
  World* world = nullptr;
  TensorGroup* group = nullptr;
};

using NamedFloats = std::map<std::string, std::vector<float>>;

struct StepResult {
  std::vector<float> losses;  // sum of each micro-batch
  StepControl control;
};

class TestPipeline {
 public:
  TestPipeline(const LayerGraph& graph, TestPipelineOptions options);

  // One step; batches[i] is micro-batch i of all members' M, group i * G / M. With `update` false it ends before the
  // optimizer. REQUIRES: one member; with several, call what follows and exchange between them.
  StepResult Step(const std::vector<ReferenceBatch>& batches, bool update = true);
  // Its forward and backward passes alone.
  void IssuePasses(const std::vector<ReferenceBatch>& batches);
  // Losses of a forward pass without training.
  std::vector<float> Evaluate(const std::vector<ReferenceBatch>& batches);
  // Of the parameters of all stages; a tied tensor must be equal in all that hold it.
  NamedFloats Read(StateKind kind);
  void Write(const NamedFloats& parameters);
  void GatherTied();
  std::vector<float> ReadLosses();
  RankModel& model() { return *model_; }
  Stream& stream() { return *stream_; }
  // Logits of these tokens after a forward pass without training: [tokens, V].
  std::vector<float> LogitsOf(const ReferenceBatch& batch, const std::vector<int32_t>& tokens);

  LayerStage* stage(size_t i) { return stages_[i]; }
  Device* device() { return device_.get(); }
  size_t stages() const { return stages_.size(); }

 private:
  MicroBatchInfo InfoFor(const std::vector<ReferenceBatch>& batches, int index, bool training) const;
  StageSlots SlotsFor(size_t stage, int micro_batch);
  void Wait(const EventRef& event);

  TestPipelineOptions options_;
  std::unique_ptr<World> own_world_;
  World* world_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  std::vector<Slot> activations_, gradients_;  // [cut][micro-batch]
  std::unique_ptr<RankModel> model_;
  std::vector<LayerStage*> stages_;
  int64_t updates_ = 0;
};

}  // namespace sluice
