#include "tests/sim/faults.h"

#include <algorithm>
#include <mutex>
#include <new>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice {

std::string ToString(FaultKind kind) {
  static constexpr const char* kNames[kFaultKinds] = {
      "slow stage",     "late event of a stage", "transfer held back", "late event of a transfer", "error of a stage",
      "throwing stage", "stage without memory",  "stuck stage",        "transport error",          "lost peer"};
  return kNames[static_cast<int>(kind)];
}

const Fault* FaultPlan::Strike(int call, bool of_stage) const {
  for (const Fault& fault : faults_) {
    const bool lasting = fault.kind == FaultKind::kPeerLost && call > fault.at_call;
    if (IsOfStage(fault.kind) == of_stage && (fault.at_call == call || lasting)) return &fault;
  }
  return nullptr;
}

EventRef FaultPlan::Late(const EventRef& event, Nanoseconds delay) const {
  auto late = MakeRef<Signal>();
  world_->Spawn({.name = "late event"}, [world = world_, event, delay, late, over = over_] {
    const EventRef events[] = {event, over};
    if (world->WaitAny(events, kForever) == size_t{1}) return;
    world->SleepUntil(world->Now() + delay);
    late->Set(event->status(), event->began(), event->ended());
  });
  return late;
}

namespace {

class FaultyStage final : public Stage {
 public:
  FaultyStage(std::unique_ptr<Stage> stage, TestStream* stream, FaultPlan* plan)
      : stage_(std::move(stage)), stream_(stream), plan_(plan) {}

  StageId id() const override { return stage_->id(); }
  EventRef Forward(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after) override {
    return Call([&] { return stage_->Forward(info, slots, after); });
  }
  EventRef InputGradient(const MicroBatchInfo& info, const StageSlots& slots,
                         absl::Span<const EventRef> after) override {
    return Call([&] { return stage_->InputGradient(info, slots, after); });
  }
  EventRef WeightGradient(const MicroBatchInfo& info, const StageSlots& slots,
                          absl::Span<const EventRef> after) override {
    return Call([&] { return stage_->WeightGradient(info, slots, after); });
  }
  EventRef Backward(const MicroBatchInfo& info, const StageSlots& slots, absl::Span<const EventRef> after) override {
    return Call([&] { return stage_->Backward(info, slots, after); });
  }
  absl::Span<const GradientReduction> reductions() const override { return stage_->reductions(); }
  absl::Span<const SliceGather> gathers() const override { return stage_->gathers(); }
  absl::Span<const TiedGradient> tied() const override { return stage_->tied(); }
  int64_t norm_partials() const override { return stage_->norm_partials(); }
  EventRef FinishGradients(TensorView partials, absl::Span<const EventRef> after) override {
    return stage_->FinishGradients(partials, after);
  }
  EventRef FinishParameters(absl::Span<const EventRef> after) override { return stage_->FinishParameters(after); }
  EventRef OptimizerStep(const OptimizerStepArgs& args, absl::Span<const EventRef> after) override {
    return stage_->OptimizerStep(args, after);
  }
  void KeepState() override { stage_->KeepState(); }
  void RollBack() override { stage_->RollBack(); }
  TensorView losses() const override { return stage_->losses(); }
  TensorView logits() const override { return stage_->logits(); }
  TensorView drawn() const override { return stage_->drawn(); }

 private:
  template <class Body>
  EventRef Call(const Body& body) {
    const Fault* fault = plan_->NextStageCall();
    if (fault == nullptr) return body();
    switch (fault->kind) {
      case FaultKind::kStageSlow:
        stream_->Run([delay = fault->delay](World* world) {
          world->SleepUntil(world->Now() + delay);
          return absl::OkStatus();
        });
        return body();
      case FaultKind::kStageEventLate:
        return plan_->Late(body(), fault->delay);
      case FaultKind::kStageError:
        stream_->Run([](World*) { return absl::InternalError("injected error of a stage"); });
        return body();
      case FaultKind::kStageThrows:
        throw std::runtime_error("injected exception");
      case FaultKind::kStageNoMemory:
        throw std::bad_alloc();
      default:
        body();
        return MakeRef<Signal>();
    }
  }

  const std::unique_ptr<Stage> stage_;
  TestStream* const stream_;
  FaultPlan* const plan_;
};

class FaultyTransport final : public Transport {
 public:
  FaultyTransport(std::unique_ptr<Transport> transport, FaultPlan* plan)
      : transport_(std::move(transport)), plan_(plan) {}

  WorldRank rank() const override { return transport_->rank(); }
  bool slots_move() const override { return transport_->slots_move(); }
  EventRef Send(ChannelId channel, Slot* slot, const EventRef& after) override {
    return Call(after, [&](const EventRef& event) { return transport_->Send(channel, slot, event); });
  }
  EventRef Recv(ChannelId channel, Slot* slot, const EventRef& slot_free) override {
    return Call(slot_free, [&](const EventRef& event) { return transport_->Recv(channel, slot, event); });
  }
  EventRef AllGather(GroupId group, TensorView mine, absl::Span<const int64_t> parts, TensorView all,
                     const EventRef& after) override {
    return Call(after, [&](const EventRef& event) { return transport_->AllGather(group, mine, parts, all, event); });
  }
  EventRef AllToAll(GroupId group, TensorView mine, absl::Span<const int64_t> parts, TensorView all,
                    const EventRef& after) override {
    return Call(after, [&](const EventRef& event) { return transport_->AllToAll(group, mine, parts, all, event); });
  }
  int64_t bytes_moved() const override { return transport_->bytes_moved(); }
  void Abort(absl::Status cause) override {
    {
      std::lock_guard lock(mutex_);
      for (const Ref<Signal>& signal : withheld_) signal->Set(cause, plan_->world()->Now());
    }
    transport_->Abort(std::move(cause));
  }

 private:
  template <class Body>
  EventRef Call(const EventRef& after, const Body& body) {
    const Fault* fault = plan_->NextTransportCall();
    if (fault == nullptr) return body(after);
    switch (fault->kind) {
      case FaultKind::kTransferHeldBack:
        return body(plan_->Late(after, fault->delay));
      case FaultKind::kTransferEventLate:
        return plan_->Late(body(after), fault->delay);
      case FaultKind::kTransportError:
        transport_->Abort(
            absl::UnavailableError(absl::StrCat("injected error of the transport of rank ", rank().value())));
        return body(after);
      default: {
        std::lock_guard lock(mutex_);
        withheld_.push_back(MakeRef<Signal>());
        return withheld_.back();
      }
    }
  }

  const std::unique_ptr<Transport> transport_;
  FaultPlan* const plan_;
  std::mutex mutex_;
  std::vector<Ref<Signal>> withheld_;
};

}  // namespace

std::unique_ptr<Stage> NewFaultyStage(std::unique_ptr<Stage> stage, TestStream* stream, FaultPlan* plan) {
  return std::make_unique<FaultyStage>(std::move(stage), stream, plan);
}

std::unique_ptr<Transport> NewFaultyTransport(std::unique_ptr<Transport> transport, FaultPlan* plan) {
  return std::make_unique<FaultyTransport>(std::move(transport), plan);
}

}  // namespace sluice
