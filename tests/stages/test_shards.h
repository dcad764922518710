// The shards of a tensor-parallel group, each with a pipeline of its own, which a task of its own drives; what they
// exchange goes through an in-process hub. Results are those of the whole model: parameters are put together from the
// shards' parts, and what all shards must have alike is compared bit by bit.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "runtime/transport/in_process.h"
#include "stages/tensor_group.h"
#include "tests/stages/test_pipeline.h"

namespace sluice {

class TestShards {
 public:
  // Of options.stage.tensor_parallel's size.
  TestShards(const LayerGraph& graph, TestPipelineOptions options);

  StepResult Step(const std::vector<ReferenceBatch>& batches, bool update = true);
  std::vector<float> Evaluate(const std::vector<ReferenceBatch>& batches);
  std::vector<float> LogitsOf(const ReferenceBatch& batch, const std::vector<int32_t>& tokens);
  NamedFloats Read(StateKind kind);
  void Write(const NamedFloats& parameters);

  // Calls body(shard, its pipeline), all at once.
  void Each(const std::function<void(size_t, TestPipeline&)>& body);
  TestPipeline& shard(size_t i) { return *pipelines_[i]; }

 private:
  const std::unique_ptr<World> world_ = NewRealWorld();
  std::unique_ptr<InProcessHub> hub_;
  std::vector<std::unique_ptr<Transport>> transports_;
  std::vector<std::unique_ptr<TensorGroup>> groups_;
  std::vector<std::unique_ptr<TestPipeline>> pipelines_;
};

}  // namespace sluice
