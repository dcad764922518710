// Things that go wrong, on demand: wrappers of Stage and Transport that do it at the k-th call.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/world.h"
#include "kernels/transport.h"
#include "stages/stage.h"
#include "tests/sim/test_device.h"

namespace sluice {

enum class FaultKind : uint8_t {
  // Harmless: everything must come out as without.
  kStageSlow,         // a compute action takes `delay` longer
  kStageEventLate,    // its event is done `delay` after it has ended
  kTransferHeldBack,  // a transfer starts `delay` after it could
  kTransferEventLate,
  // Fatal.
  kStageError,      // the stream ends with an error
  kStageThrows,     // the call throws
  kStageNoMemory,   // the call throws std::bad_alloc
  kStageStuck,      // its event is never done
  kTransportError,  // the endpoint fails
  kPeerLost,        // from this call on nothing reaches the others, and nothing comes back
};
inline constexpr int kFaultKinds = 10;
constexpr bool IsFatal(FaultKind kind) { return kind >= FaultKind::kStageError; }
constexpr bool IsOfStage(FaultKind kind) {
  return kind <= FaultKind::kStageEventLate || (IsFatal(kind) && kind <= FaultKind::kStageStuck);
}
std::string ToString(FaultKind kind);

struct Fault {
  FaultKind kind = FaultKind::kStageSlow;
  PipelineRank rank;
  int at_call = 0;  // of the rank's compute calls or of its transport's calls, over all steps
  Nanoseconds delay = 0;
  int replica = 0;
};

// One rank's faults, and its calls so far. Used by its issuing thread.
class FaultPlan {
 public:
  FaultPlan(World* world, std::vector<Fault> faults) : world_(world), faults_(std::move(faults)) {}
  World* world() const { return world_; }
  // Done as `event`, but later; or with the plan's end, since what is stuck is never done.
  EventRef Late(const EventRef& event, Nanoseconds delay) const;
  // Nobody waits any more. Called once.
  void End() { over_->Set(absl::CancelledError("the job is over"), world_->Now()); }
  // The fault that strikes this call, or null. Each call counts once.
  const Fault* NextStageCall() { return Strike(stage_calls_++, true); }
  const Fault* NextTransportCall() { return Strike(transport_calls_++, false); }

 private:
  const Fault* Strike(int call, bool of_stage) const;
  World* const world_;
  const std::vector<Fault> faults_;
  const Ref<Signal> over_ = MakeRef<Signal>();
  int stage_calls_ = 0;
  int transport_calls_ = 0;
};

// Both wrap what they own or are given; the plan outlives them.
std::unique_ptr<Stage> NewFaultyStage(std::unique_ptr<Stage> stage, TestStream* stream, FaultPlan* plan);
std::unique_ptr<Transport> NewFaultyTransport(std::unique_ptr<Transport> transport, FaultPlan* plan);

}  // namespace sluice
