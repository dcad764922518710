// A World in virtual time, deterministic from a seed. Exactly one task runs at a time; whenever it waits, the seed
// chooses who goes on among those that can: whose events are done or whose deadline has passed. When nobody can, time
// jumps to the earliest deadline; when there is none either, the tasks are deadlocked: the world prints who waits
// where, and aborts the program.
//
// Tasks are threads that pass a baton, so code under test needs no change and sanitizers work. A mutex must not be held
// across a wait. Everything that happens must come from tasks of this world: a thread outside it is not seen.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/world.h"

namespace sluice {

struct SimWorldOptions {
  uint64_t seed = 1;
  // A task that could go on is held up now and then, as by an operating system: one wait in `stall_one_in`, for up to
  // stall_max.
  int stall_one_in = 0;  // 0: never
  Nanoseconds stall_max = 0;
};

class SimWorld final : public World {
 public:
  explicit SimWorld(const SimWorldOptions& options);
  // Lets all tasks run to their end.
  ~SimWorld() override;

  Nanoseconds Now() const override;
  // The new task may run before this returns.
  EventRef Spawn(TaskOptions options, std::function<void()> body) override;
  // Also with an event that is done already, other tasks may run first.
  std::optional<size_t> WaitAny(absl::Span<const EventRef> events, Nanoseconds deadline) override;
  uint64_t Random() override;

  // Lets `duration` of virtual time pass for the calling task, as if it computed that long.
  void Spend(Nanoseconds duration) { SleepUntil(Now() + duration); }
  // Hash of all choices so far: which task went on at which time. Equal for equal seeds.
  uint64_t trace_hash() const;
  // Who waits for how many events until when, one line a task.
  std::string Report() const;

 private:
  struct Task;
  std::string ReportLocked() const;
  uint64_t NextRandom();
  Task* ChooseNext();
  Task* Current() const;
  bool CanRun(const Task& task) const;
  // Gives the baton to the next task and sleeps until it comes back. REQUIRES: lock held.
  void Yield(std::unique_lock<std::mutex>& lock, Task* self);
  void RunTask(Task* task, const std::function<void()>& body);

  const SimWorldOptions options_;
  mutable std::mutex mutex_;
  std::atomic<Nanoseconds> now_ = 0;
  uint64_t random_state_;
  uint64_t trace_hash_ = 0;
  Task* running_ = nullptr;
  std::vector<std::unique_ptr<Task>> tasks_;  // in order of creation; [0] is the thread that made the world
};

}  // namespace sluice
