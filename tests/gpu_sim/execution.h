// The simulated GPUs' time: commands in queues (streams), engines that they take, and which goes on next. Progress is a
// task of a World: in virtual time one of a SimWorld, where the same seed gives the same run.
//
// A stream's commands run one after the other; streams wait for each other only where a command waits for another's
// end. A command takes its engine (a device's compute, a direction of copies) for its duration, and its effect on
// memory happens at its end, so that whoever doesn't wait sees it missing. Commands of several streams may have to come
// together (an Exchange): each then ends only when all of them have started.
//
// Threads: any; effects run on the task, without a lock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/world.h"
#include "tests/gpu_sim/include/driver_types.h"

namespace gpu_sim {

using sluice::Nanoseconds;

enum class Timing : uint8_t {
  kSeeded,    // every duration is a random part or multiple of the modelled one: all orders that CUDA permits come out
  kModelled,  // as the device's description says; of two that could run, the one issued first
  kNone,      // no command takes time but what its effect takes on this machine
};

// The end of a command, for who waits for it.
struct Completion {
  int stream = -1;  // that it was issued to
  bool done = false;
  cudaError_t error = cudaSuccess;
  Nanoseconds ended = 0;
  sluice::Ref<sluice::Signal> signal;  // made by the first host thread that sleeps for it
};
using CompletionRef = std::shared_ptr<Completion>;

// What commands of several streams do together, once all of them have started. The lock of Execution guards it.
struct Exchange {
  struct Part {
    int stream = 0;
    bool arrived = false;  // its command has started
  };
  size_t parts_expected = 0;
  // To be set before the last part is issued.
  Nanoseconds duration = 0;
  std::function<void()> effect;  // happens once, when the first of its commands ends

  std::vector<Part> parts;  // those that have been issued
  bool broken = false;      // it never comes about
  bool happened = false;
  Nanoseconds ends = sluice::kForever;
};
using ExchangeRef = std::shared_ptr<Exchange>;

// Commands that are given up together, at a time.
struct Cancellation {
  Nanoseconds at = sluice::kForever;
};

struct Command {
  static constexpr int kNoEngine = -1;
  int engine = kNoEngine;
  int device = 0;
  Nanoseconds latency = 0;  // from its issue to the earliest start
  Nanoseconds duration = 0;
  uint32_t call = 0;  // for reports
  std::function<cudaError_t()> effect;
  std::vector<ExchangeRef> exchanges;            // it has a part in each
  std::shared_ptr<const Cancellation> given_up;  // null: never
  CompletionRef waits_for;                       // null: only for the one before it in its stream
  CompletionRef completion;                      // null: nobody waits for it alone
};

class Execution {
 public:
  struct Options {
    sluice::World* world = nullptr;
    uint64_t seed = 0;
    Timing timing = Timing::kSeeded;
  };
  struct Listeners {
    // The device and the error of a command whose effect failed: all that is queued on that device ends with this error
    // and without effect.
    std::function<void(int device, cudaError_t error)> on_failure;
    // The calls of commands that wait for one another in a circle, each for the stream of the next.
    std::function<void(const std::vector<uint32_t>& calls)> on_deadlock;
  };
  Execution(const Options& options, Listeners listeners);
  ~Execution();  // runs what has been issued to its end

  int NewEngine();
  int NewStream();
  void Issue(int stream, Command command);
  bool IsDone(const Completion& completion) const;
  // The end of what has been issued to the stream.
  CompletionRef EndOf(int stream) const;
  // Sleeps until then.
  cudaError_t WaitFor(const CompletionRef& completion);
  // The exchange never comes about.
  void Break(const ExchangeRef& exchange);
  // Commands that carry it and have not ended end without effect, and their exchanges never come about.
  void GiveUp(const std::shared_ptr<Cancellation>& cancellation);
  // What has run in which order at which times: equal for equal seeds.
  uint64_t trace_hash() const;

 private:
  struct Queued {
    Command command;
    uint64_t number = 0;  // in order of issue
    Nanoseconds not_before = 0;
  };
  struct Stream;

  void Run();
  // Does all that can be done until `now`; returns when there will be more.
  Nanoseconds Advance(Nanoseconds now);
  Nanoseconds StartOf(const Stream& stream) const;
  Nanoseconds EndOf(const Stream& stream) const;  // of what runs in it
  cudaError_t ErrorOf(int device) const;
  Stream* FirstToStart();
  Stream* FirstToEnd();
  void Start(Stream* stream);
  void Arrive(int stream, Exchange* exchange, Nanoseconds now);
  // What the stream's head waits for, as far as other streams are to bring it.
  std::vector<int> BlockersOf(int stream) const;
  void LookForDeadlock();
  void Finish(Stream* stream, std::unique_lock<std::mutex>& lock);
  void Complete(const CompletionRef& completion, cudaError_t error, Nanoseconds when);
  Nanoseconds Scaled(Nanoseconds duration);
  uint64_t NextRandom();
  void Wake(Nanoseconds now);

  const Options options_;
  const Listeners listeners_;
  mutable std::mutex mutex_;
  uint64_t random_state_;
  uint64_t trace_hash_ = 0;
  uint64_t issued_ = 0;
  bool closing_ = false;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::vector<Nanoseconds> engine_free_at_;
  std::vector<cudaError_t> device_errors_;
  sluice::Ref<sluice::Signal> wake_;  // what the task sleeps for
  sluice::EventRef task_;
};

}  // namespace gpu_sim
