// A LayerStage's end of a step, and its state as others see it.
#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "stages/layer_stage.h"

namespace sluice {

void LayerStage::MakeExchanges() {
  const TrainingLayout& training = layout_.training;
  for (const TiedPlace& place : training.tied) {
    const ParameterPlace& parameter = layout_.parameters[place.parameter];
    CHECK_EQ(parameter.use_here.size(), 1u) << "one use of " << parameter.spec.name << " per stage";
    tied_.push_back({.name = parameter.spec.name,
                     .piece = place.piece,
                     .copy = options_.copy,
                     .use = parameter.use_here.front(),
                     .uses = parameter.uses,
                     .mine = Floats(place.gather.mine),
                     .all = Floats(place.gather.all)});
  }
  for (const ReductionPlace& place : training.reductions) {
    reductions_.push_back({.mine = Floats(place.mine), .parts = place.parts, .all = Floats(place.all)});
  }
  for (const GatherPlace& place : training.gathers) gathers_.push_back({Floats(place.mine), place.parts, Floats(place.all)});
  for (const ParameterPlace& place : layout_.parameters) {
    for (const int64_t of_shard : place.norm_partials) norm_partials_ += of_shard;
  }
}

EventRef LayerStage::FinishGradients(TensorView partials, absl::Span<const EventRef> after) {
  CHECK_EQ(partials.elements(), norm_partials_);
  WaitFor(after);
  for (const SumPlace& place : layout_.training.sums) {
    SumUsesAndGroups(place);
    SumOverShards(place);
  }
  if (group_ == nullptr) {
    WriteNormPartials(partials);
  } else {
    GatherNormPartials(Floats(layout_.scratch + layout_.gathered_norms, norm_partials_), partials);
  }
  return stream_->Record();
}

// Per group over the uses, then over the groups.
void LayerStage::SumUsesAndGroups(const SumPlace& place) {
  const int groups = options_.gradient_groups, share = groups / options_.members();
  const int uses = layout_.parameters[place.parameter].uses;
  std::array<TensorView, kMaxGroups> parts;
  const auto part = [&](int use, int group) {
    return Floats(place.partials + use * place.use_stride + group / share * place.member_stride +
                      group % share * place.group_stride,
                  place.count);
  };
  for (int group = 0; group < groups && uses > 1; ++group) {
    for (int use = 0; use < uses; ++use) parts[use] = part(use, group);
    operations_.SumInOrder(*stream_, {parts.data(), static_cast<size_t>(uses)}, parts[0]);
  }
  for (int group = 0; group < groups; ++group) parts[group] = part(0, group);
  if (groups > 1)
    operations_.SumInOrder(*stream_, {parts.data(), static_cast<size_t>(groups)}, Floats(place.sum, place.count));
}

EventRef LayerStage::OptimizerStep(const OptimizerStepArgs& args, absl::Span<const EventRef> after) {
  WaitFor(after);
  for (const UpdatePlace& update : layout_.training.updates) {
    const ParameterPlace& place = layout_.parameters[update.parameter];
    operations_.AdamW(*stream_, {.parameter = Floats(place.value + 4 * update.begin, update.count),
                                 .gradient = Floats(update.gradient, update.count),
                                 .m = Floats(update.m, update.count),
                                 .v = Floats(update.v, update.count),
                                 .control = args.control,
                                 .learning_rate = args.learning_rate,
                                 .beta1 = options_.adam.beta1,
                                 .beta2 = options_.adam.beta2,
                                 .epsilon = options_.adam.epsilon,
                                 .weight_decay = place.spec.decay ? options_.adam.weight_decay : 0.0f,
                                 .step = args.update});
    if (!updates_slices()) Pack(place);
  }
  return stream_->Record();
}

EventRef LayerStage::FinishParameters(absl::Span<const EventRef> after) {
  WaitFor(after);
  for (const ParameterPlace& place : layout_.parameters) Pack(place);
  return stream_->Record();
}

template <class Copy>
void LayerStage::ForEachKept(const Copy& copy) {
  for (const UpdatePlace& update : layout_.training.updates) {
    CHECK(update.kept >= 0) << "stage " << id_ << " was not planned for keeping its state";
    int64_t kept = update.kept;
    for (const int64_t state : {layout_.parameters[update.parameter].value + 4 * update.begin, update.m, update.v}) {
      copy(Floats(state, update.count), Floats(kept, update.count));
      kept += 4 * update.count;
    }
  }
}

void LayerStage::KeepState() {
  ForEachKept([&](TensorView state, TensorView kept) { operations_.Copy(*stream_, state, kept); });
}

void LayerStage::RollBack() {
  ForEachKept([&](TensorView state, TensorView kept) { operations_.Copy(*stream_, kept, state); });
}

std::vector<ParameterSpec> LayerStage::parameters() const {
  std::vector<ParameterSpec> specs;
  for (const ParameterPlace& place : layout_.parameters) specs.push_back(place.spec);
  return specs;
}

std::vector<LayerStage::Elements> LayerStage::HeldState(absl::string_view name) const {
  std::vector<Elements> held;
  for (const UpdatePlace& update : layout_.training.updates) {
    if (layout_.parameters[update.parameter].spec.name == name) held.push_back({update.begin, update.count});
  }
  return held;
}

// Without ZeRO all members update everything.
std::vector<LayerStage::OwnState> LayerStage::OwnedState() const {
  std::vector<OwnState> owned;
  if (!updates_slices() && options_.member() > 0) return owned;
  for (const UpdatePlace& update : layout_.training.updates) {
    const ParameterPlace& place = layout_.parameters[update.parameter];
    if (!place.answers()) continue;
    for (const PartRange& range : RangesOf(place.spec, update.begin, update.count)) {
      if (range.slice.holder > 0) continue;
      for (const StateKind kind : {StateKind::kParameter, StateKind::kFirstMoment, StateKind::kSecondMoment}) {
        owned.push_back({.kind = kind, .parameter = update.parameter, .range = range});
      }
    }
  }
  return owned;
}

EventRef LayerStage::HashParameters(absl::Span<uint64_t> hashes) {
  CHECK_EQ(hashes.size(), layout_.parameters.size());
  std::byte* const room = arena_.data() + layout_.scratch;  // which no layer has a use for between two actions
  const auto count = static_cast<int64_t>(hashes.size());
  CHECK_LE(8 * count, layout_.memory.scratch) << "planned for inference";
  for (int64_t i = 0; i < count; ++i) {
    const ParameterPlace& place = layout_.parameters[i];
    operations_.Hash(*stream_, Floats(place.value, place.spec.elements()), {room + 8 * i, DType::kI32, {2}});
  }
  if (count > 0) stream_->CopyToHost({room, DType::kI32, {2 * count}}, hashes.data());
  return stream_->Record();
}

absl::StatusOr<int> LayerStage::Find(StateKind kind, absl::string_view name, size_t elements) const {
  for (size_t i = 0; i < layout_.parameters.size(); ++i) {
    const ParameterPlace& place = layout_.parameters[i];
    if (place.spec.name != name) continue;
    if (place.spec.elements() != static_cast<int64_t>(elements)) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter \"", name, "\" has ", place.spec.elements(), " elements, not ", elements));
    }
    if (kind != StateKind::kParameter && options_.purpose == StagePurpose::kInference)
      return absl::NotFoundError(absl::StrCat("a stage for inference keeps no such state of ", name));
    return static_cast<int>(i);
  }
  return absl::NotFoundError(absl::StrCat("stage ", id_.value(), " has no parameter \"", name, "\""));
}

template <class Copy>
void LayerStage::ForEachPiece(StateKind kind, int parameter, const Copy& copy) const {
  const ParameterPlace& place = layout_.parameters[parameter];
  if (kind == StateKind::kParameter) return copy(Floats(place.value, place.spec.elements()), 0);
  for (const UpdatePlace& update : layout_.training.updates) {
    const std::array<int64_t, 4> offsets = {0, update.gradient, update.m, update.v};
    if (update.parameter == parameter) copy(Floats(offsets[static_cast<size_t>(kind)], update.count), update.begin);
  }
}

void LayerStage::CopyToHost(const OwnState& state, Stream* stream, float* host) const {
  const int64_t begin = state.range.first, end = begin + state.range.count;
  ForEachPiece(state.kind, state.parameter, [&](TensorView piece, int64_t first) {
    const int64_t from = std::max(begin, first), to = std::min(end, first + piece.elements());
    if (from >= to) return;
    const TensorView part{piece.data + 4 * (from - first), piece.dtype, {to - from}};
    stream->CopyToHost(part, host + (from - begin));
  });
}

absl::StatusOr<EventRef> LayerStage::Read(StateKind kind, absl::string_view name, absl::Span<float> host) {
  ASSIGN_OR_RETURN(const int parameter, Find(kind, name, host.size()));
  if (!layout_.parameters[parameter].keeps_value) {
    return absl::NotFoundError(
        absl::StrCat("a stage for inference keeps ", name, " only as the device computes with it"));
  }
  ForEachPiece(kind, parameter,
               [&](TensorView piece, int64_t begin) { stream_->CopyToHost(piece, host.data() + begin); });
  return stream_->Record();
}

EventRef LayerStage::BeginSequence(int64_t sequence, const SamplingRules& rules, absl::Span<const uint32_t> seen) {
  if (layout_.rules < 0) return DoneEvent();
  CHECK(sequence >= 0 && sequence < options_.sequences()) << "sequence " << sequence;
  const int64_t words = SeenWords(vocabulary_);
  CHECK_EQ(static_cast<int64_t>(seen.size()), words);
  stream_->CopyToDevice(
      &rules, Integers(layout_.rules + sequence * static_cast<int64_t>(sizeof(rules)), {kSamplingRulesWords}));
  stream_->CopyToDevice(seen.data(), Integers(layout_.seen + 4 * sequence * words, {words}));
  return stream_->Record();
}

absl::StatusOr<EventRef> LayerStage::Write(StateKind kind, absl::string_view name, absl::Span<const float> host) {
  ASSIGN_OR_RETURN(const int parameter, Find(kind, name, host.size()));
  ForEachPiece(kind, parameter,
               [&](TensorView piece, int64_t begin) { stream_->CopyToDevice(host.data() + begin, piece); });
  if (kind == StateKind::kParameter) Pack(layout_.parameters[parameter]);
  return stream_->Record();
}

}  // namespace sluice
