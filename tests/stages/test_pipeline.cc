#include "tests/stages/test_pipeline.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"

namespace sluice {

TestPipeline::TestPipeline(const LayerGraph& graph, TestPipelineOptions options)
    : options_(std::move(options)),
      own_world_(options_.world == nullptr ? NewRealWorld() : nullptr),
      world_(options_.world == nullptr ? own_world_.get() : options_.world) {
  device_ = cpu::NewCpuDevice(world_, {.threads = options_.threads, .poison_fresh_memory = true});
  stream_ = device_->NewStream("compute");
  StageOptions stage = options_.stage;
  stage.micro_batches = stage.stash_slots = options_.micro_batches;
  stage.gradient_stash_slots = stage.backward == BackwardForm::kSplit ? options_.micro_batches : 1;
  std::vector<size_t> ends = options_.cuts;
  ends.push_back(graph.nodes.size());
  std::vector<std::unique_ptr<Stage>> stages;
  RankModelOptions model{.place = stage.member(), .max_norm = options_.max_norm};
  std::vector<int> places(stage.members());
  std::iota(places.begin(), places.end(), 0);
  size_t begin = 0;
  for (size_t end : ends) {
    const StageId id(static_cast<int64_t>(stages.size()));
    auto made = LayerStage::Create(device_.get(), stream_.get(), graph, id, {begin, end}, stage, options_.group);
    CHECK_OK(made.status());
    model.norms.push_back({.stage = id, .places = places, .runs = NormRuns(graph, {begin, end}, stage)});
    const StageMemory& memory = (*made)->memory();
    for (int i = 0; i < options_.micro_batches && end < graph.nodes.size(); ++i) {
      activations_.push_back({device_->Allocate(memory.output_message, "activation").value()});
      gradients_.push_back({device_->Allocate(memory.output_gradient_message, "gradient").value()});
    }
    stages_.push_back(made->get());
    stages.push_back(*std::move(made));
    begin = end;
  }
  auto created = RankModel::Create(device_.get(), stream_.get(), std::move(stages), std::move(model));
  CHECK_OK(created.status());
  model_ = *std::move(created);
}

void TestPipeline::Wait(const EventRef& event) { CHECK_OK(world_->Wait(event)); }

MicroBatchInfo TestPipeline::InfoFor(const std::vector<ReferenceBatch>& batches, int index, bool training) const {
  const int all = static_cast<int>(batches.size()), place = options_.stage.member() * options_.micro_batches + index;
  const ReferenceBatch& batch = batches[place];
  int64_t valid = 0;
  for (const ReferenceBatch& other : batches) {
    valid += std::count_if(other.targets.begin(), other.targets.end(), [](int32_t target) { return target >= 0; });
  }
  const int groups = options_.stage.gradient_groups, group = place * groups / all;
  const bool first = index == 0 || (place - 1) * groups / all != group;
  return {.index = MicroBatch(index),
          .rows = batch.rows,
          .sequence = batch.sequence,
          .tokens = batch.tokens,
          .targets = batch.targets,
          .positions = batch.positions,
          .first_key = batch.first_key,
          .samples = batch.samples,
          .step = batch.step,
          .loss_scale = 1.0f / static_cast<float>(valid),
          .gradient_group = group,
          .accumulate = first ? Accumulate::kOverwrite : Accumulate::kAdd,
          .head_accumulate = first ? Accumulate::kOverwrite : Accumulate::kAdd,
          .training = training};
}

StageSlots TestPipeline::SlotsFor(size_t stage, int micro_batch) {
  StageSlots slots{.stash = micro_batch,
                   .gradient_stash = options_.stage.backward == BackwardForm::kSplit ? micro_batch : 0};
  const size_t count = static_cast<size_t>(options_.micro_batches), before = (stage - 1) * count + micro_batch;
  if (stage > 0) {
    slots.input = &activations_[before];
    slots.input_gradient = &gradients_[before];
  }
  if (stage + 1 < stages_.size()) {
    slots.output = &activations_[stage * count + micro_batch];
    slots.output_gradient = &gradients_[stage * count + micro_batch];
  }
  return slots;
}

void TestPipeline::IssuePasses(const std::vector<ReferenceBatch>& batches) {
  CHECK_EQ(batches.size(), static_cast<size_t>(options_.micro_batches * options_.stage.members()));
  const int count = options_.micro_batches;
  for (int i = 0; i < count; ++i) {
    for (size_t s = 0; s < stages_.size(); ++s) stages_[s]->Forward(InfoFor(batches, i, true), SlotsFor(s, i), {});
  }
  const bool split = options_.stage.backward == BackwardForm::kSplit;
  for (int i = 0; i < count; ++i) {
    const MicroBatchInfo info = InfoFor(batches, i, true);
    for (size_t s = stages_.size(); s-- > 0;) {
      if (split) {
        stages_[s]->InputGradient(info, SlotsFor(s, i), {});
      } else {
        stages_[s]->Backward(info, SlotsFor(s, i), {});
      }
    }
  }
  for (int i = 0; split && i < count; ++i) {
    for (LayerStage* stage : stages_) {
      stage->WeightGradient(InfoFor(batches, i, true), SlotsFor(stage->id().index(), i), {});
    }
  }
}

StepResult TestPipeline::Step(const std::vector<ReferenceBatch>& batches, bool update) {
  IssuePasses(batches);
  GatherTied();
  model_->FinishGradients({});
  const Operations& operations = device_->operations();
  operations.Copy(*stream_, model_->norm_mine(), model_->norm_all());
  StepResult result;
  if (update) {
    model_->OptimizerStep(options_.learning_rate, ++updates_, {});
    stream_->CopyToHost(model_->control(), &result.control);
  }
  result.losses = ReadLosses();
  return result;
}

std::vector<float> TestPipeline::Evaluate(const std::vector<ReferenceBatch>& batches) {
  for (int i = 0; i < options_.micro_batches; ++i) {
    for (size_t s = 0; s < stages_.size(); ++s) stages_[s]->Forward(InfoFor(batches, i, false), SlotsFor(s, 0), {});
  }
  return ReadLosses();
}

void TestPipeline::GatherTied() {
  for (LayerStage* holder : stages_) {
    for (const TiedGradient& target : holder->tied()) {
      for (LayerStage* other : stages_) {
        for (const TiedGradient& source : other->tied()) {
          if (source.name != target.name || source.piece != target.piece) continue;
          TensorView part = source.mine;
          part.data = target.all.data + source.use * source.mine.bytes();
          device_->operations().Copy(*stream_, source.mine, part);
        }
      }
    }
  }
}

std::vector<float> TestPipeline::ReadLosses() {
  std::vector<float> losses(options_.micro_batches);
  stream_->CopyToHost(stages_.back()->losses(), losses.data());
  Wait(stream_->Record());
  return losses;
}

std::vector<float> TestPipeline::LogitsOf(const ReferenceBatch& batch, const std::vector<int32_t>& tokens) {
  const std::vector<ReferenceBatch> batches = {batch};
  MicroBatchInfo info = InfoFor(batches, 0, false);
  info.logits_of = tokens;
  for (size_t s = 0; s < stages_.size(); ++s) stages_[s]->Forward(info, SlotsFor(s, 0), {});
  const TensorView logits = stages_.back()->logits();
  std::vector<float> values(logits.elements());
  stream_->CopyToHost(logits, values.data());
  Wait(stream_->Record());
  return values;
}

NamedFloats TestPipeline::Read(StateKind kind) {
  NamedFloats all;
  for (LayerStage* stage : stages_) {
    for (const ParameterSpec& spec : stage->parameters()) {
      std::vector<float> values(spec.elements());
      Wait(stage->Read(kind, spec.name, absl::MakeSpan(values)).value());
      const auto [found, added] = all.emplace(spec.name, values);
      CHECK(added || found->second == values) << "the holders of " << spec.name << " differ";
    }
  }
  return all;
}

void TestPipeline::Write(const NamedFloats& parameters) {
  for (LayerStage* stage : stages_) {
    for (const ParameterSpec& spec : stage->parameters()) {
      Wait(stage->Write(StateKind::kParameter, spec.name, parameters.at(spec.name)).value());
    }
  }
}

}  // namespace sluice
