// The World: time, tasks, waiting and random numbers. Everything in runtime/ and every CPU stream takes threads, waits and deadlines
// from here and nowhere else, so that the same code runs on real threads (RealWorld) and, deterministic from a seed and
// in virtual time, in tests (tests/sim: one task at a time).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "base/event.h"
#include "base/time.h"

namespace sluice {

struct TaskOptions {
  std::string name;
  // The processors that the task may run on; empty: any. A wish: a processor that doesn't exist is passed over.
  std::vector<int> processors;
};

class World {
 public:
  virtual ~World() = default;
  // Time since the world began.
  virtual Nanoseconds Now() const = 0;
  // Starts a task; the event is done when its body has returned. The world must outlive its tasks.
  virtual EventRef Spawn(TaskOptions options, std::function<void()> body) = 0;
  // Blocks the calling task until one of the events is done, and returns its index (the lowest that is done), or until
  // the deadline has passed, and returns nothing. With no events it waits for the deadline.
  // REQUIRES: called by a task of this world or by the thread that made it.
  virtual std::optional<size_t> WaitAny(absl::Span<const EventRef> events, Nanoseconds deadline) = 0;
  // Random bits for what may differ between runs (tokens, jitter of retries); never for training's numbers.
  virtual uint64_t Random() = 0;

  // Waits for one event without a deadline and returns its status.
  absl::Status Wait(const EventRef& event);
  void SleepUntil(Nanoseconds time) { WaitAny({}, time); }
};

// Threads and condition variables.
std::unique_ptr<World> NewRealWorld();

}  // namespace sluice
