#include "tests/sim/affine_stage.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/philox.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr int64_t kWords = kAffineWords;

uint32_t InitialNumber(int stage, int which) { return static_cast<uint32_t>(MixBits(100 * stage + which)) | 1; }
uint32_t InitialTied() { return 17; }

float LossOf(const uint32_t* y) {
  uint32_t sum = 0;
  for (int64_t j = 0; j < kWords; ++j) sum += y[j];
  return static_cast<float>(sum >> 9);
}

uint32_t OutputGradient(uint32_t y, int32_t target) { return 2 * y + static_cast<uint32_t>(target); }

float PartialOf(uint32_t gradient) { return static_cast<float>((gradient ^ (gradient >> 13)) & 0xfff); }

// Where gradients are scaled a step depends on the scale alone, as an optimizer's does.
uint32_t Update(float learning_rate, const StepControl& control, float max_norm) {
  const uint32_t bits = std::bit_cast<uint32_t>(max_norm > 0 ? control.scale : control.norm);
  return static_cast<uint32_t>(learning_rate) * 2 + ((bits ^ (bits >> 13)) & 0xff);
}

// A slot's address is settled when an action is issued, and taken then.
uint32_t* WordsOf(Slot* slot) { return slot == nullptr ? nullptr : reinterpret_cast<uint32_t*>(slot->buffer.data()); }

// The arguments of one action on the stream; a plain value.
struct Work {
  StageId stage;
  int micro_batch;
  Nanoseconds cost;
  const uint32_t* numbers;
  bool tied, first, last, input, weight, training;
  Accumulate accumulate;
  const int32_t* tokens;
  const int32_t* targets;
  uint32_t* in;
  uint32_t* out;
  uint32_t* out_gradient;
  uint32_t* in_gradient;
  uint32_t* stash;
  uint32_t* gradient_stash;
  uint32_t* gradients;
  uint32_t* tied_gradient;
  float* loss;
  uint32_t* logits;
};

uint32_t Bias(const Work& w) { return w.numbers[1] + (w.tied ? w.numbers[2] : 0); }

absl::Status Clobbered(const Work& w, const char* what) {
  return absl::DataLossError(absl::StrCat("stage ", w.stage.value(), ", micro-batch ", w.micro_batch, ": the ", what,
                                          " slot holds something else than what was put there"));
}

absl::Status RunForward(const Work& w, World* world) {
  if (w.cost > 0) world->SleepUntil(world->Now() + w.cost);
  uint32_t y[kWords];
  for (int64_t j = 0; j < kWords; ++j) {
    const uint32_t x = w.first ? static_cast<uint32_t>(w.tokens[j]) : w.in[j];
    w.stash[j] = x;
    y[j] = w.numbers[0] * x + Bias(w);
  }
  if (!w.last) std::memcpy(w.out, y, sizeof(y));
  if (w.last) {
    *w.loss = LossOf(y);
    std::memcpy(w.logits, y, sizeof(y));
  }
  return absl::OkStatus();
}

absl::Status RunGradient(const Work& w, World* world) {
  if (w.cost > 0) world->SleepUntil(world->Now() + w.cost);
  if (!w.first && std::memcmp(w.stash, w.in, kWords * 4) != 0) return Clobbered(w, "INPUT");
  uint32_t dy[kWords];
  for (int64_t j = 0; j < kWords; ++j) {
    dy[j] = w.last ? OutputGradient(w.numbers[0] * w.stash[j] + Bias(w), w.targets[j]) : w.out_gradient[j];
  }
  if (w.input) {
    std::memcpy(w.gradient_stash, dy, sizeof(dy));
    if (!w.first) {
      for (int64_t j = 0; j < kWords; ++j) w.in_gradient[j] = w.numbers[0] * dy[j];
    }
  }
  if (!w.weight) return absl::OkStatus();
  if (std::memcmp(w.gradient_stash, dy, sizeof(dy)) != 0) return Clobbered(w, "OUTPUT_GRADIENT or GRADIENT_STASH");
  uint32_t da = 0, dc = 0;
  for (int64_t j = 0; j < kWords; ++j) {
    da += dy[j] * w.stash[j];
    dc += dy[j];
  }
  if (w.accumulate == Accumulate::kOverwrite) {
    w.gradients[0] = w.gradients[1] = 0;
    if (w.tied) *w.tied_gradient = 0;
  }
  w.gradients[0] += da;
  w.gradients[1] += dc;
  if (w.tied) *w.tied_gradient += dc;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<AffineStage>> AffineStage::Create(Device* device, TestStream* stream,
                                                                 const AffineOptions& options) {
  auto stage = std::unique_ptr<AffineStage>(new AffineStage(stream, options));
  const int64_t replicas = options.replicas;
  const int64_t words = 9 + 3 + 2 * replicas + 2 * replicas +
                        kWords * (options.stash_slots + options.gradient_stash_slots + 1) + options.micro_batches;
  ASSIGN_OR_RETURN(stage->memory_, device->Allocate(words * 4, absl::StrCat("stage ", options.id.value())));
  uint32_t* next = reinterpret_cast<uint32_t*>(stage->memory_.data());
  const auto take = [&](int64_t count) { return std::exchange(next, next + count); };
  const auto floats = [&](int64_t count) {
    return TensorView{reinterpret_cast<std::byte*>(take(count)), DType::kF32, {count}};
  };
  stage->numbers_ = take(9);
  stage->gradients_ = take(3);
  stage->received_ = take(2 * replicas);
  stage->tied_received_ = take(2 * replicas);
  stage->stash_ = take(kWords * options.stash_slots);
  stage->gradient_stash_ = take(kWords * options.gradient_stash_slots);
  const TensorView logits = floats(kWords), losses = floats(options.micro_batches);
  if (stage->last()) {
    stage->logits_ = logits;
    stage->losses_ = losses;
  }
  stage->numbers_[0] = InitialNumber(options.id.value(), 0);
  stage->numbers_[1] = InitialNumber(options.id.value(), 1);
  stage->numbers_[2] = InitialTied();
  stage->MakeExchanges();
  return stage;
}

// One replica has its gradients where it would receive them, and exchanges no slices.
void AffineStage::MakeExchanges() {
  const int replicas = options_.replicas, use = first() ? 0 : 1;
  const bool tied = options_.tied && options_.stages > 1 && (first() || last());
  const auto view = [](uint32_t* words, int64_t count) {
    return TensorView{reinterpret_cast<std::byte*>(words), DType::kF32, {count}};
  };
  const auto share = [&](uint32_t* mine, int64_t numbers, const Slice& slice, uint32_t* all, uint32_t* whole) {
    std::vector<int64_t>& parts = parts_.emplace_back();
    for (int replica = 0; replica < replicas; ++replica) parts.push_back(4 * SliceOf(numbers, replica, replicas).size());
    reductions_.push_back({view(mine, numbers), parts, view(all, replicas * slice.size())});
    gathers_.push_back({view(whole + slice.begin, slice.size()), parts, view(whole, numbers)});
  };
  const int64_t t = replicas * tied_slice_.size();  // words of one use
  parts_.reserve(2);
  if (replicas > 1) {
    uint32_t* whole = options_.zero1 ? numbers_ : numbers_ + 3;
    share(gradients_, 2, slice_, received_, whole);
    if (tied) share(gradients_ + 2, 1, tied_slice_, tied_received_ + use * t, whole + 2);
  } else {
    received_ = gradients_;
  }
  if (!tied || t == 0) return;
  uint32_t* mine = replicas > 1 ? tied_received_ + use * t : gradients_ + 2;
  tied_.push_back({.name = "t", .use = use, .uses = 2, .mine = view(mine, t), .all = view(tied_received_, 2 * t)});
}

EventRef AffineStage::Forward(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after) {
  CHECK_EQ(first(), slots.input == nullptr);
  CHECK_EQ(last(), slots.output == nullptr);
  CHECK(slots.stash >= 0 && slots.stash < options_.stash_slots) << "STASH slot " << slots.stash;
  for (const EventRef& event : after) stream_->Wait(event);
  const Work work{.stage = options_.id,
                  .micro_batch = info.index.value(),
                  .cost = options_.forward_cost,
                  .numbers = numbers_,
                  .tied = options_.tied && options_.stages > 1 && (first() || last()),
                  .first = first(),
                  .last = last(),
                  .tokens = info.tokens.data(),
                  .in = WordsOf(slots.input),
                  .out = WordsOf(slots.output),
                  .stash = stash_ + slots.stash * kWords,
                  .loss = losses_ ? losses_.as<float>() + info.index.value() : nullptr,
                  .logits = logits_ ? logits_.as<uint32_t>() : nullptr};
  stream_->Record();
  stream_->Run([work](World* world) { return RunForward(work, world); });
  return stream_->Record();
}

EventRef AffineStage::Gradient(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after,
                               bool input, bool weight) {
  CHECK_EQ(first(), slots.input == nullptr);
  CHECK_EQ(last(), slots.output_gradient == nullptr);
  if (input) CHECK_EQ(first(), slots.input_gradient == nullptr);
  CHECK(slots.stash >= 0 && slots.stash < options_.stash_slots) << "STASH slot " << slots.stash;
  CHECK(slots.gradient_stash >= 0 && slots.gradient_stash < options_.gradient_stash_slots)
      << "GRADIENT_STASH slot " << slots.gradient_stash;
  CHECK_EQ(info.gradient_group, options_.replica);
  if (weight) poisoned_ = options_.poisoned_steps.count(static_cast<int>(info.step)) > 0;
  for (const EventRef& event : after) stream_->Wait(event);
  const Work work{.stage = options_.id,
                  .micro_batch = info.index.value(),
                  .cost = options_.forward_cost * (input + weight),
                  .numbers = numbers_,
                  .tied = options_.tied && options_.stages > 1 && (first() || last()),
                  .first = first(),
                  .last = last(),
                  .input = input,
                  .weight = weight,
                  .accumulate = info.accumulate,
                  .targets = info.targets.data(),
                  .in = WordsOf(slots.input),
                  .out_gradient = WordsOf(slots.output_gradient),
                  .in_gradient = WordsOf(slots.input_gradient),
                  .stash = stash_ + slots.stash * kWords,
                  .gradient_stash = gradient_stash_ + slots.gradient_stash * kWords,
                  .gradients = gradients_,
                  .tied_gradient = gradients_ + 2};
  stream_->Record();
  stream_->Run([work](World* world) { return RunGradient(work, world); });
  return stream_->Record();
}

EventRef AffineStage::InputGradient(const MicroBatchInfo& info, const StageSlots& slots,
                                    absl::Span<const EventRef> after) {
  return Gradient(info, slots, after, true, false);
}
EventRef AffineStage::WeightGradient(const MicroBatchInfo& info, const StageSlots& slots,
                                     absl::Span<const EventRef> after) {
  return Gradient(info, slots, after, false, true);
}
EventRef AffineStage::Backward(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after) {
  return Gradient(info, slots, after, true, true);
}

EventRef AffineStage::FinishGradients(TensorView partials, absl::Span<const EventRef> after) {
  for (const EventRef& event : after) stream_->Wait(event);
  stream_->Run([this, partials, poisoned = std::exchange(poisoned_, false)](World*) {
    uint32_t* sums = numbers_ + 3;
    sums[0] = sums[1] = sums[2] = 0;
    for (int64_t i = 0; i < slice_.size(); ++i) {
      uint32_t& sum = sums[slice_.begin + i];
      for (int replica = 0; replica < options_.replicas; ++replica) sum += received_[replica * slice_.size() + i];
      partials.as<float>()[i] = poisoned ? std::numeric_limits<float>::infinity() : PartialOf(sum);
    }
    for (int64_t i = 0; i < (tied_.empty() ? 0 : tied_[0].all.elements()); ++i) sums[2] += tied_received_[i];
    return absl::OkStatus();
  });
  return stream_->Record();
}

EventRef AffineStage::OptimizerStep(const OptimizerStepArgs& args, absl::Span<const EventRef> after) {
  for (const EventRef& event : after) stream_->Wait(event);
  stream_->Run([this, args](World*) {
    StepControl control;
    std::memcpy(&control, args.control.data, sizeof(control));
    if (control.skip != 0) return absl::OkStatus();
    const auto update = [&](int64_t i) {
      numbers_[i] -= Update(args.learning_rate, control, options_.max_norm) * numbers_[3 + i];
    };
    const bool slices = options_.zero1 && options_.replicas > 1;
    const Slice mine = slices ? slice_ : Slice{0, 2}, tied = slices ? tied_slice_ : Slice{0, 1};
    for (int64_t i = mine.begin; i < mine.end; ++i) update(i);
    for (int64_t i = tied.begin; i < tied.end; ++i) update(2 + i);
    return absl::OkStatus();
  });
  return stream_->Record();
}

EventRef AffineStage::FinishParameters(absl::Span<const EventRef> after) {
  for (const EventRef& event : after) stream_->Wait(event);
  return stream_->Record();
}

std::vector<NormRun> AffineNormRuns(int replicas) {
  std::vector<NormRun> runs;
  for (int replica = 0; replica < replicas; ++replica) {
    runs.push_back({replica, 2 * (replica + 1) / replicas - 2 * replica / replicas});
  }
  return runs;
}

void AffineStage::KeepState() {
  stream_->Run([numbers = numbers_](World*) {
    std::copy_n(numbers, 3, numbers + 6);
    return absl::OkStatus();
  });
}

void AffineStage::RollBack() {
  stream_->Run([numbers = numbers_](World*) {
    std::copy_n(numbers + 6, 3, numbers);
    return absl::OkStatus();
  });
}

AffineReference::AffineReference(int stages, bool tied, float max_norm, std::set<int> poisoned)
    : tied_(tied && stages > 1), max_norm_(max_norm), poisoned_(std::move(poisoned)) {
  for (int stage = 0; stage < stages; ++stage) {
    parameters.push_back({InitialNumber(stage, 0), InitialNumber(stage, 1), InitialTied()});
  }
}

// What enters each stage, and what leaves the last.
std::vector<std::vector<uint32_t>> AffineReference::Activations(const MicroBatchInfo& info) const {
  std::vector<std::vector<uint32_t>> x(parameters.size() + 1, std::vector<uint32_t>(kWords));
  for (int64_t j = 0; j < kWords; ++j) {
    x[0][j] = static_cast<uint32_t>(info.tokens[j]);
    for (size_t s = 0; s < parameters.size(); ++s) {
      const bool uses_t = tied_ && (s == 0 || s + 1 == parameters.size());
      x[s + 1][j] = parameters[s][0] * x[s][j] + parameters[s][1] + (uses_t ? parameters[s][2] : 0);
    }
  }
  return x;
}

float AffineReference::Forward(const MicroBatchInfo& info) const { return LossOf(Activations(info).back().data()); }

std::vector<float> AffineReference::Step(absl::Span<const MicroBatchInfo> infos, float learning_rate, float* norm) {
  const size_t stages = parameters.size();
  std::vector<float> losses;
  std::vector<std::vector<uint32_t>> sums(stages, std::vector<uint32_t>(3));
  uint32_t dt = 0;
  for (const MicroBatchInfo& info : infos) {
    const auto x = Activations(info);
    losses.push_back(LossOf(x.back().data()));
    for (int64_t j = 0; j < kWords; ++j) {
      uint32_t dy = OutputGradient(x[stages][j], info.targets[j]);
      for (size_t s = stages; s-- > 0; dy *= parameters[s][0]) {
        sums[s][0] += dy * x[s][j];
        sums[s][1] += dy;
        if (tied_ && (s == 0 || s + 1 == stages)) dt += dy;
      }
    }
  }
  float squares = 0;
  for (const auto& sum : sums) squares += PartialOf(sum[0]) + PartialOf(sum[1]);
  *norm = std::sqrt(squares);
  if (poisoned_.count(static_cast<int>(infos[0].step)) > 0) {
    *norm = std::numeric_limits<float>::infinity();
    return losses;
  }
  StepControl control{.norm = *norm};
  if (max_norm_ > 0 && *norm > max_norm_) control.scale = max_norm_ / *norm;
  for (size_t s = 0; s < stages; ++s) {
    if (tied_ && (s == 0 || s + 1 == stages)) sums[s][2] = dt;
    for (int i = 0; i < 3; ++i) parameters[s][i] -= Update(learning_rate, control, max_norm_) * sums[s][i];
  }
  return losses;
}

}  // namespace sluice
