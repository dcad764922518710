// The shards of a tensor-parallel group, each with a pipeline of its own, which a task of its own drives; what they
// exchange goes through an in-process hub. Results are those of the whole model: parameters are put together from the
// shards' parts, and what all shards must have alike is compared bit by bit.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/transport/in_process.h"
#include "stages/tensor_group.h"
#include "stages/tensor_traffic.h"
#include "tests/stages/test_pipeline.h"

namespace sluice {

// Counts what goes through it. The pipelines need collectives alone.
class CountingTransport final : public Transport {
 public:
  explicit CountingTransport(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}
  WorldRank rank() const override { return inner_->rank(); }
  bool slots_move() const override { return inner_->slots_move(); }
  EventRef Send(ChannelId channel, Slot* slot, const EventRef& after) override {
    return inner_->Send(channel, slot, after);
  }
  EventRef Recv(ChannelId channel, Slot* slot, const EventRef& slot_free) override {
    return inner_->Recv(channel, slot, slot_free);
  }
  EventRef AllGather(GroupId group, TensorView mine, absl::Span<const int64_t> parts, TensorView all,
                     const EventRef& after) override {
    traffic += {1, all.bytes() - mine.bytes()};
    return inner_->AllGather(group, mine, parts, all, after);
  }
  EventRef AllToAll(GroupId group, TensorView mine, absl::Span<const int64_t> parts, TensorView all,
                    const EventRef& after) override {
    traffic += {1, all.bytes() - parts[inner_->rank().index()]};
    return inner_->AllToAll(group, mine, parts, all, after);
  }
  void Abort(absl::Status cause) override { inner_->Abort(std::move(cause)); }

  Traffic traffic;

 private:
  const std::unique_ptr<Transport> inner_;
};

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
  // What shard i has exchanged so far.
  const Traffic& traffic(size_t i) const { return transports_[i]->traffic; }

 private:
  const std::unique_ptr<World> world_ = NewRealWorld();
  std::unique_ptr<InProcessHub> hub_;
  std::vector<std::unique_ptr<CountingTransport>> transports_;
  std::vector<std::unique_ptr<TensorGroup>> groups_;
  std::vector<std::unique_ptr<TestPipeline>> pipelines_;
};

}  // namespace sluice
