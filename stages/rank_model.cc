#include "stages/rank_model.h"

#include <algorithm>
#include <numeric>
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

// Of each place's partials in the order of places, then the number of all.
std::vector<int64_t> BeginsOf(const RankModelOptions& options) {
  std::vector<int64_t> begins(options.place + 2);
  for (const auto& norm : options.norms) {
    for (const int place : norm.places) begins.resize(std::max<size_t>(begins.size(), place + 2));
    for (const NormRun& run : norm.runs) begins[norm.places[run.member] + 1] += run.count;
  }
  std::partial_sum(begins.begin(), begins.end(), begins.begin());
  return begins;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RankModel>> RankModel::Create(Device* device, Stream* stream,
                                                             std::vector<std::unique_ptr<Stage>> stages,
                                                             RankModelOptions options) {
  auto model = std::unique_ptr<RankModel>(new RankModel());
  model->begins_ = BeginsOf(options);
  for (size_t place = 0; place + 1 < model->begins_.size(); ++place) {
    model->norm_parts_.push_back(4 * (model->begins_[place + 1] - model->begins_[place]));
  }
  const int64_t all = model->begins_.back();
  const int64_t mine = model->begins_[options.place + 1] - model->begins_[options.place];
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
  std::sort(model->stages_.begin(), model->stages_.end(),
            [](const auto& a, const auto& b) { return a->id() < b->id(); });
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
  CHECK(false) << "the rank at place " << options_.place << " doesn't hold stage " << id;
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

// Gathered place by place, at each stage by stage, each in global order: so in global order of all, every run is the
// next of its place.
int64_t RankModel::OrderNorms(TensorView gathered, int last) {
  next_ = begins_;
  int64_t target = 0;
  for (const auto& norm : options_.norms) {
    for (const NormRun& run : norm.runs) {
      const int place = norm.places[run.member];
      if (place > last || run.count == 0) continue;
      device_->operations().Copy(*stream_, Part(gathered, next_[place], run.count),
                                 Part(norm_ordered_, target, run.count));
      next_[place] += run.count;
      target += run.count;
    }
  }
  return target;
}

EventRef RankModel::OptimizerStep(float learning_rate, int64_t update, absl::Span<const EventRef> after) {
  for (const EventRef& event : after) stream_->Wait(event);
  const int64_t known = OrderNorms(norm_all_, static_cast<int>(begins_.size()));
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
  if (mine > 0) operations.Copy(*stream_, norm_mine_, Part(norms, begins_[options_.place], mine));
  const int64_t known = OrderNorms(norms, options_.place);
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
