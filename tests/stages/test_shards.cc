#include "tests/stages/test_shards.h"

#include <cstring>

#include "base/check.h"

namespace sluice {
namespace {

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

}  // namespace

TestShards::TestShards(const LayerGraph& graph, TestPipelineOptions options) {
  const int size = options.stage.tensor_parallel.size;
  GroupSpec spec{.id = GroupId(0), .queue = QueueId(0), .purpose = "shards"};
  for (int i = 0; i < size; ++i) spec.members.push_back(WorldRank(i));
  hub_ = std::make_unique<InProcessHub>(world_.get(), size);
  options.world = world_.get();
  for (int i = 0; i < size; ++i) {
    transports_.push_back(std::make_unique<CountingTransport>(hub_->Open(WorldRank(i), {}, {spec}).value()));
    groups_.push_back(std::make_unique<TensorGroup>(transports_.back().get(), spec.id, size, i));
    options.stage.tensor_parallel.index = i;
    options.group = groups_.back().get();
    pipelines_.push_back(std::make_unique<TestPipeline>(graph, options));
  }
}

void TestShards::Each(const std::function<void(size_t, TestPipeline&)>& body) {
  std::vector<EventRef> tasks;
  for (size_t i = 0; i < pipelines_.size(); ++i) {
    tasks.push_back(world_->Spawn({.name = "shard"}, [&, i] { body(i, *pipelines_[i]); }));
  }
  for (const EventRef& task : tasks) CHECK_OK(world_->Wait(task));
}

StepResult TestShards::Step(const std::vector<ReferenceBatch>& batches, bool update) {
  std::vector<StepResult> results(pipelines_.size());
  Each([&](size_t i, TestPipeline& pipeline) { results[i] = pipeline.Step(batches, update); });
  for (const StepResult& result : results) {
    CHECK(SameBits(result.losses, results[0].losses)) << "losses differ between shards";
    CHECK(std::memcmp(&result.control, &results[0].control, sizeof(StepControl)) == 0) << "decisions differ";
  }
  return results[0];
}

std::vector<float> TestShards::Evaluate(const std::vector<ReferenceBatch>& batches) {
  std::vector<std::vector<float>> losses(pipelines_.size());
  Each([&](size_t i, TestPipeline& pipeline) { losses[i] = pipeline.Evaluate(batches); });
  for (const std::vector<float>& other : losses) CHECK(SameBits(other, losses[0])) << "losses differ between shards";
  return losses[0];
}

std::vector<float> TestShards::LogitsOf(const ReferenceBatch& batch, const std::vector<int32_t>& tokens) {
  std::vector<std::vector<float>> logits(pipelines_.size());
  Each([&](size_t i, TestPipeline& pipeline) { logits[i] = pipeline.LogitsOf(batch, tokens); });
  for (const std::vector<float>& other : logits) CHECK(SameBits(other, logits[0])) << "logits differ between shards";
  return logits[0];
}

NamedFloats TestShards::Read(StateKind kind) {
  std::vector<NamedFloats> values(pipelines_.size());
  std::map<std::string, std::vector<ParameterPart>> parts;
  for (size_t i = 0; i < pipelines_.size(); ++i) {
    values[i] = pipelines_[i]->Read(kind);
    std::map<std::string, ParameterSpec> specs;
    for (size_t s = 0; s < pipelines_[i]->stages(); ++s) {
      for (const ParameterSpec& spec : pipelines_[i]->stage(s)->parameters()) specs[spec.name] = spec;
    }
    for (const auto& [name, spec] : specs) parts[name].push_back({spec, values[i].at(name)});
  }
  NamedFloats complete;
  for (const auto& [name, of_shards] : parts) {
    auto assembled = Assemble(of_shards);
    CHECK_OK(assembled.status());
    for (const ParameterPart& part : of_shards) {
      CHECK(SameBits(PartOf(part.spec, *assembled), part.values)) << "the holders of " << name << " differ";
    }
    complete[name] = *std::move(assembled);
  }
  return complete;
}

void TestShards::Write(const NamedFloats& parameters) {
  for (const auto& pipeline : pipelines_) {
    NamedFloats parts;
    for (size_t s = 0; s < pipeline->stages(); ++s) {
      for (const ParameterSpec& spec : pipeline->stage(s)->parameters()) {
        parts[spec.name] = PartOf(spec, parameters.at(spec.name));
      }
    }
    pipeline->Write(parts);
  }
}

}  // namespace sluice
