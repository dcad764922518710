#include "stages/layer_stage.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/philox.h"
#include "base/status.h"

namespace sluice {
namespace {

using Region = Place::Region;

TensorView Message(Slot* slot, DType dtype, const Shape& shape, const char* what) {
  CHECK(slot != nullptr) << "no slot for the " << what;
  const TensorView view{slot->buffer.data(), dtype, shape};
  CHECK_LE(view.bytes(), slot->buffer.bytes()) << "the slot of the " << what << " is too small";
  return view;
}

TensorView Absent() { return {}; }

}  // namespace

absl::StatusOr<std::unique_ptr<LayerStage>> LayerStage::Create(Device* device, Stream* stream, const LayerGraph& graph,
                                                               StageId id, NodeRange range, const StageOptions& options,
                                                               TensorGroup* group) {
  RETURN_IF_ERROR(CheckTensorParallel(graph, options.tensor_parallel));
  CHECK_EQ(group == nullptr ? 1 : group->size(), options.tensor_parallel.size);
  CHECK_EQ(group == nullptr ? 0 : group->index(), options.tensor_parallel.index);
  if (options.gradient_groups < 1 || options.gradient_groups > kMaxGroups) {
    return absl::InvalidArgumentError(
        absl::StrCat("gradient groups is ", options.gradient_groups, "; it must be from 1 to ", kMaxGroups));
  }
  if (options.gradient_groups % options.members() != 0) {
    return absl::InvalidArgumentError(absl::StrCat("gradient groups is ", options.gradient_groups,
                                                   "; it must be a multiple of the ", options.members(),
                                                   " copies of the model, those of all replicas"));
  }
  auto stage = std::unique_ptr<LayerStage>(new LayerStage(device, stream, graph, id, range, options, group));
  const Operations& operations = device->operations();
  stage->layout_ = PlanStage(
      graph, range, stage->options_, [&](const LinearShape& shape) { return operations.PackedLinearBytes(shape); },
      [&](const CacheShape& shape) { return operations.KeyValueCacheBytes(shape); });
  const int64_t bytes = stage->layout_.memory.ArenaBytes(options.stash_slots, options.gradient_stash_slots);
  ASSIGN_OR_RETURN(stage->arena_, device->Allocate(bytes, absl::StrCat("stage ", id.value())));
  stage->MakeLayers(graph, range);
  stage->MakeExchanges();
  stage->Initialize();
  return stage;
}

LayerStage::LayerStage(Device* device, Stream* stream, const LayerGraph& graph, StageId id, NodeRange range,
                       StageOptions options, TensorGroup* group)
    : device_(device),
      operations_(device->operations()),
      stream_(stream),
      id_(id),
      first_node_(range.begin),
      options_(std::move(options)),
      group_(group),
      compute_(options_.precision == Precision::kF32 ? DType::kF32 : DType::kBF16),
      vocabulary_(graph.vocabulary) {}

void LayerStage::MakeLayers(const LayerGraph& graph, NodeRange range) {
  for (size_t node = range.begin; node < range.end; ++node) {
    layers_.push_back(NewLayer(graph.nodes[node], compute_, options_.tensor_parallel));
    boundaries_.push_back(node > 0 ? OutputWidth(graph.nodes[node - 1]) : 0);
  }
  boundaries_.push_back(OutputWidth(graph.nodes[range.end - 1]));
}

void LayerStage::Initialize() {
  for (const ParameterPlace& place : layout_.parameters) {
    if (place.spec.init == ParameterSpec::Init::kNormal) {
      InitializeNormal(place);
    } else {
      const float value = place.spec.init == ParameterSpec::Init::kOne ? 1.0f : 0.0f;
      operations_.Fill(*stream_, Floats(place.value, place.spec.elements()), value);
    }
    Pack(place);
  }
  for (const UpdatePlace& update : layout_.training.updates) {
    operations_.Fill(*stream_, Floats(update.m, update.count), 0);
    operations_.Fill(*stream_, Floats(update.v, update.count), 0);
  }
  // What others write into later is touched here first, so that its pages lie beside this rank's processors; and what
  // stands between tensors travels with them.
  for (const TiedGradient& tied : tied_) operations_.Fill(*stream_, tied.all, 0);
  for (const GradientReduction& reduction : reductions_) {
    operations_.Fill(*stream_, reduction.mine, 0);
    if (reduction.all.elements() > 0) operations_.Fill(*stream_, reduction.all, 0);
  }
}

void LayerStage::Pack(const ParameterPlace& place) {
  if (place.packed < 0) return;
  const TensorView weight{arena_.data() + place.value, DType::kF32, {place.spec.rows, place.spec.columns}};
  const LinearShape shape{
      .n = place.spec.rows, .k = place.spec.columns, .compute = compute_, .packed_for = packed_for()};
  operations_.PackLinear(*stream_, shape, weight, Floats(place.packed, place.packed_bytes / 4));
}

EventRef LayerStage::Forward(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after) {
  CHECK_LE(info.rows * info.sequence, options_.rows * options_.sequence) << "more tokens than planned for";
  CHECK_LE(info.rows, options_.rows);
  WaitFor(after);
  CopyBatch(info, slots);
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    Tell(layer, Phase::kForward);
    const LayerCall call = CallFor(layer, info, slots, Phase::kForward);
    layers_[layer]->Forward(call);
    logits_ = call.logits;
    if (call.draw.tokens && slots.output != nullptr) {
      operations_.Copy(*stream_, call.draw.tokens,
                       Message(slots.output, DType::kI32, call.draw.tokens.shape, "tokens drawn"));
    }
  }
  return EndOfAction();
}

EventRef LayerStage::InputGradient(const MicroBatchInfo& info, const StageSlots& slots,
                                   absl::Span<const EventRef> after) {
  CHECK(options_.backward == BackwardForm::kSplit) << "planned for whole backward passes";
  WaitFor(after);
  for (size_t layer = layers_.size(); layer-- > 0;) LayerInputGradient(layer, info, slots);
  return EndOfAction();
}

EventRef LayerStage::WeightGradient(const MicroBatchInfo& info, const StageSlots& slots,
                                    absl::Span<const EventRef> after) {
  CHECK(options_.backward == BackwardForm::kSplit) << "planned for whole backward passes";
  WaitFor(after);
  for (size_t layer = layers_.size(); layer-- > 0;) LayerWeightGradient(layer, info, slots);
  return EndOfAction();
}

// Layer by layer, so that what a layer has just written is still near.
EventRef LayerStage::Backward(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after) {
  WaitFor(after);
  for (size_t layer = layers_.size(); layer-- > 0;) {
    LayerInputGradient(layer, info, slots);
    LayerWeightGradient(layer, info, slots);
  }
  return EndOfAction();
}

void LayerStage::LayerInputGradient(size_t layer, const MicroBatchInfo& info, const StageSlots& slots) {
  Tell(layer, Phase::kInputGradient);
  LayerCall call = CallFor(layer, info, slots, Phase::kInputGradient);
  if (layout_.layers[layer].recompute_full) layers_[layer]->Forward(call);
  layers_[layer]->InputGradient(call);
}

void LayerStage::LayerWeightGradient(size_t layer, const MicroBatchInfo& info, const StageSlots& slots) {
  Tell(layer, Phase::kWeightGradient);
  const LayerCall call = CallFor(layer, info, slots, Phase::kWeightGradient);
  if (layout_.layers[layer].recompute_cheap) layers_[layer]->RecomputeCheap(call);
  layers_[layer]->WeightGradient(call);
  MarkReady(layer);
}

// Its gradients can be exchanged while the layers before it are still at work.
void LayerStage::MarkReady(size_t layer) {
  EventRef ready;
  for (size_t i = 0; i < reductions_.size(); ++i) {
    if (layout_.training.reductions[i].layer != static_cast<int>(layer)) continue;
    if (!ready) ready = stream_->Fork();
    reductions_[i].ready = ready;
  }
}

void LayerStage::Tell(size_t layer, Phase phase) const {
  if (!options_.on_layer) return;
  const LayerWork work{.node = first_node_ + layer, .pass = phase};
  options_.on_layer(&work);
}

EventRef LayerStage::EndOfAction() {
  if (options_.on_layer) options_.on_layer(nullptr);
  return stream_->Record();
}

void LayerStage::WaitFor(absl::Span<const EventRef> after) {
  for (const EventRef& event : after) stream_->Wait(event);
}

void LayerStage::CopyBatch(const MicroBatchInfo& info, const StageSlots& slots) {
  const BatchViews batch = Batch(info, slots);
  const auto copy = [&](absl::Span<const int32_t> host, const TensorView& device, const char* what) {
    if (!device) return;
    CHECK_EQ(static_cast<int64_t>(host.size()), device.elements()) << "number of " << what;
    stream_->CopyToDevice(host.data(), device);
  };
  if (!TokensComeTo(slots)) copy(info.tokens, batch.tokens, "tokens");
  if (info.logits_of.empty()) copy(info.targets, batch.targets, "targets");
  copy(info.positions, batch.positions, "positions");
  copy(info.first_key, batch.first_key, "first keys");
  if (info.training) copy(info.samples, batch.samples, "samples");  // only dropout reads them
  copy(info.sequences, batch.sequences, "sequences");
  const DrawViews draw = Draw(info, slots);
  copy(info.drawn_sequences, draw.sequences, "sequences that draw");
  copy(info.drawn_positions, draw.positions, "positions of what is drawn");
}

// Drawn by the last stage.
bool LayerStage::TokensComeTo(const StageSlots& slots) const {
  return layout_.batch.tokens >= 0 && slots.input != nullptr;
}

BatchViews LayerStage::Batch(const MicroBatchInfo& info, const StageSlots& slots) const {
  const int64_t tokens = info.rows * info.sequence;
  const BatchPlaces& places = layout_.batch;
  const auto view = [&](int64_t offset, int64_t count) {
    if (offset < 0) return Absent();
    return Integers(layout_.stash + slots.stash * layout_.memory.stash_slot + offset, {count});
  };
  return {.tokens =
              TokensComeTo(slots) ? Message(slots.input, DType::kI32, {tokens}, "tokens") : view(places.tokens, tokens),
          .targets = view(places.targets, tokens),
          .positions = view(places.positions, tokens),
          .first_key = info.first_key.empty() ? Absent() : view(places.first_key, tokens),
          .samples = view(places.samples, info.rows),
          .sequences = info.sequences.empty() ? Absent() : view(places.sequences, tokens)};
}

// In the same place for all that are drawn after this micro-batch; none where nothing is drawn.
DrawViews LayerStage::Draw(const MicroBatchInfo& info, const StageSlots& slots) const {
  const auto count = static_cast<int64_t>(info.drawn_sequences.size());
  if (count == 0 || layout_.drawn < 0) return {};
  CHECK_LE(count, options_.group_sequences) << "more sequences draw than planned for";
  CHECK_EQ(info.drawn_sequences.size(), info.logits_of.size());
  const int64_t slot = layout_.stash + slots.stash * layout_.memory.stash_slot;
  const int64_t drawn = layout_.drawn + 4 * info.index.value() * options_.group_sequences;
  return {.sequences = Integers(slot + layout_.batch.drawn_sequences, {count}),
          .positions = Integers(slot + layout_.batch.drawn_positions, {count}),
          .rules = Integers(layout_.rules, {options_.sequences(), kSamplingRulesWords}),
          .seen = Integers(layout_.seen, {options_.sequences(), SeenWords(vocabulary_)}),
          .tokens = Integers(drawn, {count})};
}

LayerCall LayerStage::CallFor(size_t layer, const MicroBatchInfo& info, const StageSlots& slots, Phase phase) const {
  const LayerPlace& place = layout_.layers[layer];
  LayerCall call{.operations = operations_,
                 .stream = *stream_,
                 .group = group_,
                 .rows = info.rows,
                 .sequence = info.sequence,
                 .batch = Batch(info, slots),
                 .packed_for = packed_for(),
                 .accumulate = phase == Phase::kInputGradient ? info.head_accumulate : info.accumulate,
                 .training = info.training,
                 .seed = options_.seed,
                 .step = static_cast<uint32_t>(info.step),
                 .loss_scale = info.loss_scale};
  if (place.cache >= 0) {
    call.cache = {Floats(place.cache, place.cache_bytes / 4), options_.sequences(), options_.context};
  }
  SetBoundaries(layer, info, slots, phase, &call);
  const auto& places = phase == Phase::kForward ? place.forward : place.backward;
  for (size_t i = 0; i < place.tensors.size(); ++i) {
    if (places[i].region == Region::kNone) continue;
    const LayerTensor& tensor = place.tensors[i];
    const int64_t rows = RowsOf(tensor, info.rows * info.sequence, options_.tensor_parallel);
    call.tensors[i] = {At(places[i], slots), tensor.dtype, {rows, tensor.columns}};
  }
  for (size_t i = 0; i < place.parameters.size(); ++i) {
    const ParameterPlace& parameter = layout_.parameters[place.parameters[i]];
    call.parameters[i].value = Floats(parameter.value, parameter.spec.elements());
    if (parameter.spec.rows > 1) call.parameters[i].value.shape = {parameter.spec.rows, parameter.spec.columns};
    if (parameter.packed >= 0) call.parameters[i].packed = Floats(parameter.packed, parameter.packed_bytes / 4);
    if (phase != Phase::kForward) {
      call.parameters[i].gradient = Partial(parameter, place.uses[i], info.gradient_group);
      call.parameters[i].gradient.shape = call.parameters[i].value.shape;
    }
  }
  // The layer with the loss is the one that nothing leaves.
  if (boundaries_[layer + 1] == 0) {
    CHECK_LT(info.index.value(), options_.micro_batches);
    call.loss = Floats(layout_.losses + 4 * info.index.value(), 1);
    if (!info.training) SetLogits(info, &call);
    call.draw = Draw(info, slots);
  }
  return call;
}

void LayerStage::SetLogits(const MicroBatchInfo& info, LayerCall* call) const {
  const auto count = static_cast<int64_t>(info.logits_of.size());
  if (count == 0) return;
  CHECK_LE(count, options_.groups > 0 ? options_.group_sequences : options_.rows)
      << "logits are wanted of more tokens than planned for";
  call->logits_of = info.logits_of;
  call->logits = Floats(layout_.logits, count * vocabulary_);
  call->logits.shape = {count, vocabulary_};
}

void LayerStage::SetBoundaries(size_t layer, const MicroBatchInfo& info, const StageSlots& slots, Phase phase,
                               LayerCall* call) const {
  const int64_t tokens = TokensOf(info.rows * info.sequence, options_.tensor_parallel).count;
  const auto& places = layout_.layers;
  const bool first = layer == 0, last = layer + 1 == layers_.size(), backward = phase != Phase::kForward;
  const int64_t in = boundaries_[layer], out = boundaries_[layer + 1];
  const Shape in_shape{tokens, in}, out_shape{tokens, out};
  if (in > 0) {
    call->x = first ? Message(slots.input, compute_, in_shape, "input")
                    : TensorView{At(places[layer - 1].output, slots), compute_, in_shape};
    if (phase == Phase::kInputGradient) {  // by W it has left
      call->dx = first ? Message(slots.input_gradient, compute_, in_shape, "input's gradient")
                       : TensorView{At(places[layer - 1].output_gradient, slots), compute_, in_shape};
    }
  }
  if (out == 0) return;
  if (backward) {
    call->dy = last ? Message(slots.output_gradient, compute_, out_shape, "output's gradient")
                    : TensorView{At(places[layer].output_gradient, slots), compute_, out_shape};
  } else {
    call->y = last ? Message(slots.output, compute_, out_shape, "output")
                   : TensorView{At(places[layer].output, slots), compute_, out_shape};
  }
}

std::byte* LayerStage::At(const Place& place, const StageSlots& slots) const {
  const StageMemory& memory = layout_.memory;
  switch (place.region) {
    case Region::kStash:
      CHECK(slots.stash >= 0 && slots.stash < options_.stash_slots) << "stash slot " << slots.stash;
      return arena_.data() + layout_.stash + slots.stash * memory.stash_slot + place.offset;
    case Region::kGradientStash:
      CHECK(slots.gradient_stash >= 0 && slots.gradient_stash < options_.gradient_stash_slots)
          << "gradient stash slot " << slots.gradient_stash;
      return arena_.data() + layout_.gradient_stash + slots.gradient_stash * memory.gradient_stash_slot + place.offset;
    case Region::kScratch:
      return arena_.data() + layout_.scratch + place.offset;
    case Region::kNone:
      break;
  }
  CHECK(false) << "a tensor that was not planned for";
  return nullptr;
}

TensorView LayerStage::Floats(int64_t offset, int64_t count) const {
  return {arena_.data() + offset, DType::kF32, {count}};
}

TensorView LayerStage::Integers(int64_t offset, const Shape& shape) const {
  return {arena_.data() + offset, DType::kI32, shape};
}

TensorView LayerStage::Partial(const ParameterPlace& place, int use, int group) const {
  const int share = options_.gradient_groups / options_.members(), own = group - options_.member() * share;
  CHECK(own >= 0 && own < share) << "gradient group " << group << " of member " << options_.member();
  const auto at = std::find(place.use_here.begin(), place.use_here.end(), use);
  CHECK(at != place.use_here.end() && !place.partials.empty()) << "no gradient of use " << use;
  return Floats(place.partials[at - place.use_here.begin()] + own * place.partial_stride, place.spec.elements());
}

TensorView LayerStage::drawn() const {
  if (layout_.drawn < 0) return {};
  return Integers(layout_.drawn, {options_.micro_batches, options_.group_sequences});
}

TensorView LayerStage::losses() const {
  return layout_.losses < 0 ? TensorView{} : Floats(layout_.losses, options_.micro_batches);
}

}  // namespace sluice
