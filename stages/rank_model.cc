#include "stages/rank_model.h"

#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace sluice {
namespace {

TensorView Floats(const Buffer& memory, int64_t* used, int64_t count) {
  TensorView view{memory.data() + *used, DType::kF32, {count}};
  *used += (view.bytes() + 63) / 64 * 64;
  return view;
}

TensorView Part(const TensorView& whole, int64_t begin, int64_t count) {
  return {whole.data + begin * SizeOf(whole.dtype), whole.dtype, {count}};
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankModel>> RankModel::Create(Device* device, Stream* stream,
                                                             std::vector<std::unique_ptr<Stage>> stages,
                                                             RankModelOptions options) {
  auto model = std::unique_ptr<RankModel>(new RankModel());
  int64_t all = 0, mine = 0;
  for (const auto& norm : options.norms) {
    all += norm.partials;
    if (norm.rank == options.rank) mine += norm.partials;
  }
  ASSIGN_OR_RETURN(model->memory_, device->Allocate(Bytes(mine, all), "gradient norm"));
  int64_t used = 0;
  model->norm_mine_ = Floats(model->memory_, &used, mine);
  model->norm_all_ = Floats(model->memory_, &used, all);
  model->norm_ordered_ = Floats(model->memory_, &used, all);
  model->control_ = Floats(model->memory_, &used, 4);
  model->device_ = device;
  model->stream_ = stream;
  model->stages_ = std::move(stages);
  model->options_ = std::move(options);
  return model;
}

RankModel::~RankModel() {
  if (stream_ != nullptr) stream_->Drain();
}

Stage* RankModel::stage(StageId id) const {
  for (const auto& stage : stages_) {
    if (stage->id() == id) return stage.get();
  }
  CHECK(false) << "rank " << options_.rank << " doesn't hold stage " << id;
  return nullptr;
}

EventRef RankModel::FinishGradients(absl::Span<const EventRef> after) {
  EventRef last;
  int64_t begin = 0;
  for (const auto& stage : stages_) {
    const int64_t count = stage->norm_partials();
    last = stage->FinishGradients(Part(norm_mine_, begin, count), after);
    begin += count;
  }
  return last;
}

// Gathered in rank order, a rank's stages ascending; wanted in stage order, whatever the placement.
EventRef RankModel::OptimizerStep(float learning_rate, int64_t update, absl::Span<const EventRef> after) {
  for (const EventRef& event : after) stream_->Wait(event);
  const Operations& operations = device_->operations();
  int64_t target = 0;
  for (const auto& norm : options_.norms) {
    int64_t source = 0;
    for (const auto& other : options_.norms) {
      if (other.rank < norm.rank || (other.rank == norm.rank && other.stage < norm.stage)) source += other.partials;
    }
    if (norm.partials > 0) {
      operations.Copy(*stream_, Part(norm_all_, source, norm.partials), Part(norm_ordered_, target, norm.partials));
    }
    target += norm.partials;
  }
  operations.DecideStep(*stream_, norm_ordered_, options_.max_norm, control_);
  EventRef last;
  for (const auto& stage : stages_) last = stage->OptimizerStep({control_, learning_rate, update}, {});
  return last;
}

}  // namespace sluice
