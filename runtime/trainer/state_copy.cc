#include "runtime/trainer/state_copy.h"

#include <algorithm>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace sluice {
namespace {

Piece PieceOf(const ParameterSpec& spec, const LayerStage::OwnState& state) {
  return {.kind = state.kind,
          .name = spec.name,
          .complete_rows = spec.complete_rows,
          .complete_columns = spec.complete_columns,
          .block = state.range.slice,
          .begin = state.range.begin,
          .count = state.range.count};
}

// The rows of a slice in which the range lies, into their place in `part`.
absl::Status ReadRows(const ParameterSource& source, StateKind kind, const ParameterSpec& spec, const PartRange& range,
                      absl::Span<float> part) {
  const int64_t columns = range.slice.columns;
  const int64_t row = range.begin / columns, rows = (range.begin + range.count - 1) / columns + 1 - row;
  Slice block = range.slice;
  block.row += row;
  block.rows = rows;
  return source.Read(kind, spec.name, block, part.subspan(range.first - range.begin + row * columns, rows * columns));
}

// `room` has at least the elements of the part.
absl::Status Restore(World* world, LayerStage* stage, const ParameterSpec& spec, StateKind kind,
                     const ParameterSource& source, absl::Span<float> room) {
  const absl::Span<float> part = room.first(spec.elements());
  std::vector<LayerStage::Elements> held = {{0, spec.elements()}};
  if (kind != StateKind::kParameter) held = stage->HeldState(spec.name);
  for (const LayerStage::Elements& elements : held) {
    for (const PartRange& range : RangesOf(spec, elements.begin, elements.count)) {
      RETURN_IF_ERROR(ReadRows(source, kind, spec, range, part));
    }
  }
  ASSIGN_OR_RETURN(const EventRef written, stage->Write(kind, spec.name, part));
  return world->Wait(written);
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateCopy>> StateCopy::Create(World* world, Device* device, const std::string& name,
                                                             absl::Span<LayerStage* const> stages) {
  auto copy = std::unique_ptr<StateCopy>(new StateCopy(world, device->NewStream(name)));
  for (const LayerStage* stage : stages) {
    const std::vector<ParameterSpec> specs = stage->parameters();
    for (const LayerStage::OwnState& state : stage->OwnedState()) {
      copy->sources_.push_back({stage, state});
      copy->pieces_.push_back(PieceOf(specs[state.parameter], state));
      copy->elements_ += state.range.count;
    }
  }
  copy->values_.reset(new (std::nothrow) float[copy->elements_]);
  if (copy->values_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the host has no ", 4 * copy->elements_, " bytes for a copy of the state of ", name));
  }
  return copy;
}

StateCopy::~StateCopy() {
  if (task_) CHECK_OK(world_->Wait(task_));
}

void StateCopy::Begin() {
  if (task_) CHECK_OK(world_->Wait(task_));  // of a snapshot that another rank couldn't take part in
  copied_ = MakeRef<Signal>();
  task_ = world_->Spawn({.name = "state copy"}, [this] { Copy(); });
}

// Issued by a task of its own: a stream may make its issuer wait until what has been copied has landed.
void StateCopy::Copy() {
  float* host = values_.get();
  for (const Source& source : sources_) {
    source.stage->CopyToHost(source.state, stream_.get(), host);
    host += source.state.range.count;
  }
  const EventRef end = stream_->Record();
  world_->WaitAny({&end, 1}, kForever);
  copied_->Set(end->status(), world_->Now());
}

RankSnapshot StateCopy::snapshot(WorldRank rank) const {
  return {
      .rank = rank, .pieces = pieces_, .values = {values_.get(), static_cast<size_t>(elements_)}, .copied = copied_};
}

absl::Status RestoreStages(World* world, absl::Span<LayerStage* const> stages, const ParameterSource& source,
                           RestoredState what) {
  std::vector<float> room;
  for (LayerStage* stage : stages) {
    for (const ParameterSpec& spec : stage->parameters()) {
      room.resize(std::max<size_t>(room.size(), spec.elements()));
      for (const StateKind kind : {StateKind::kParameter, StateKind::kFirstMoment, StateKind::kSecondMoment}) {
        if (kind != StateKind::kParameter && what == RestoredState::kParameters) continue;
        RETURN_IF_ERROR(Restore(world, stage, spec, kind, source, absl::MakeSpan(room)));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice
