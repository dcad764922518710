#include "stages/rank_model.h"

#include <algorithm>
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
  model->guess_ = Floats(model->memory_, &used, 4);
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

// Gathered in rank order, a rank's stages in the order of `norms`; wanted in stage order, whatever the placement. Of
// all copies of the model only the first one counts.
int64_t RankModel::OrderNorms(TensorView gathered, PipelineRank last) {
  int64_t target = 0;
  for (const auto& norm : options_.norms) {
    if (norm.copy > 0 || norm.rank > last || norm.partials == 0) continue;
    int64_t source = NormBegin(norm.rank);
    for (const auto& other : options_.norms) {
      if (&other >= &norm) break;
      if (other.rank == norm.rank) source += other.partials;
    }
    device_->operations().Copy(*stream_, Part(gathered, source, norm.partials),
                               Part(norm_ordered_, target, norm.partials));
    target += norm.partials;
  }
  return target;
}

int64_t RankModel::NormBegin(PipelineRank rank) const {
  int64_t begin = 0;
  for (const auto& norm : options_.norms) begin += norm.rank < rank ? norm.partials : 0;
  return begin;
}

EventRef RankModel::OptimizerStep(float learning_rate, int64_t update, absl::Span<const EventRef> after) {
  for (const EventRef& event : after) stream_->Wait(event);
  PipelineRank last_rank = options_.rank;
  for (const auto& norm : options_.norms) last_rank = std::max(last_rank, norm.rank);
  const int64_t known = OrderNorms(norm_all_, last_rank);
  device_->operations().DecideStep(*stream_, Part(norm_ordered_, 0, known), options_.max_norm, control_);
  EventRef last;
  for (const auto& stage : stages_) last = stage->OptimizerStep({control_, learning_rate, update}, {});
  return last;
}

// Adding what is still missing, which is not negative, to a sum in order makes it no smaller: a part that is scaled
// down or not finite belongs to a whole that is too.
EventRef RankModel::AddNorm(TensorView norms, absl::Span<const EventRef> after) {
  for (const EventRef& event : after) stream_->Wait(event);
  const Operations& operations = device_->operations();
  const int64_t mine = norm_mine_.elements();
  if (mine > 0) operations.Copy(*stream_, norm_mine_, Part(norms, NormBegin(options_.rank), mine));
  const int64_t known = OrderNorms(norms, options_.rank);
  operations.DecideStep(*stream_, Part(norm_ordered_, 0, known), options_.max_norm, control_);
  operations.GuessStep(*stream_, control_, guess_);
  return stream_->Record();
}

EventRef RankModel::GuessStep(float learning_rate, int64_t update) {
  guessed_ = {guess_, learning_rate, update};
  EventRef last;
  for (const auto& stage : stages_) stage->KeepState();
  for (const auto& stage : stages_) last = stage->OptimizerStep(guessed_, {});
  return last;
}

EventRef RankModel::Revise() {
  EventRef last;
  for (const auto& stage : stages_) stage->RollBack();
  for (const auto& stage : stages_) {
    last = stage->OptimizerStep({control_, guessed_.learning_rate, guessed_.update}, {});
  }
  return last;
}

}  // namespace sluice
