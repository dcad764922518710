#include "tests/sim/sim_world.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/philox.h"

namespace sluice {
namespace {

// The task of this thread. A thread belongs to at most one world at a time; a test's own thread may make several after
// another.
thread_local void* current_task = nullptr;

bool AnyDone(absl::Span<const EventRef> events) {
  return std::any_of(events.begin(), events.end(), [](const EventRef& event) { return event->Done(); });
}

}  // namespace

struct SimWorld::Task {
  std::string name;
  size_t number = 0;
  std::condition_variable baton;
  bool ended = false;
  absl::Span<const EventRef> events;  // what it waits for, in its own stack
  Nanoseconds deadline = 0;
  Nanoseconds held_until = 0;  // a stall: it can't go on before
  std::thread thread;
};

SimWorld::SimWorld(const SimWorldOptions& options) : options_(options), random_state_(MixBits(options.seed)) {
  tasks_.push_back(std::make_unique<Task>());
  tasks_[0]->name = "main";
  CHECK(current_task == nullptr) << "this thread is a task of another simulated world";
  current_task = running_ = tasks_[0].get();
}

SimWorld::~SimWorld() {
  std::unique_lock lock(mutex_);
  CHECK(Current() == tasks_[0].get()) << "a simulated world is destroyed by the thread that made it";
  while (std::any_of(tasks_.begin() + 1, tasks_.end(), [](const auto& task) { return !task->ended; })) {
    // Goes on when all others have ended: RunTask() then finds nobody but this one.
    tasks_[0]->deadline = kForever;
    tasks_[0]->events = {};
    Yield(lock, tasks_[0].get());
  }
  for (size_t i = 1; i < tasks_.size(); ++i) tasks_[i]->thread.join();
  current_task = nullptr;
}

// Without the lock: events are asked under it, and some of them look at the time.
Nanoseconds SimWorld::Now() const { return now_.load(std::memory_order_relaxed); }

uint64_t SimWorld::Random() {
  std::lock_guard lock(mutex_);
  return NextRandom();
}

uint64_t SimWorld::trace_hash() const {
  std::lock_guard lock(mutex_);
  return trace_hash_;
}

std::string SimWorld::Report() const {
  std::lock_guard lock(mutex_);
  return ReportLocked();
}

EventRef SimWorld::Spawn(TaskOptions options, std::function<void()> body) {
  auto ended = MakeRef<Signal>();
  std::unique_lock lock(mutex_);
  Task* self = Current();
  tasks_.push_back(std::make_unique<Task>());
  Task* task = tasks_.back().get();
  task->name = std::move(options.name);
  task->number = tasks_.size() - 1;
  task->thread = std::thread([this, task, ended, body = std::move(body)]() mutable {
    RunTask(task, body);
    body = nullptr;
    std::unique_lock lock(mutex_);
    task->ended = true;
    ended->Set(absl::OkStatus(), now_);
    ended = nullptr;
    Yield(lock, task);
  });
  self->deadline = now_;  // may go on at once
  self->events = {};
  Yield(lock, self);
  return ended;
}

void SimWorld::RunTask(Task* task, const std::function<void()>& body) {
  {
    std::unique_lock lock(mutex_);
    task->baton.wait(lock, [&] { return running_ == task; });
    current_task = task;
  }
  body();
}

std::optional<size_t> SimWorld::WaitAny(absl::Span<const EventRef> events, Nanoseconds deadline) {
  std::unique_lock lock(mutex_);
  Task* self = Current();
  self->events = events;
  self->deadline = deadline;
  if (options_.stall_one_in > 0 && NextRandom() % options_.stall_one_in == 0) {
    self->held_until = now_ + static_cast<Nanoseconds>(NextRandom() % (options_.stall_max + 1));
  }
  Yield(lock, self);
  self->events = {};
  for (size_t i = 0; i < events.size(); ++i) {
    if (events[i]->Done()) return i;
  }
  return std::nullopt;
}

SimWorld::Task* SimWorld::Current() const {
  Task* task = static_cast<Task*>(current_task);
  CHECK(task != nullptr && task == running_) << "called by a thread that is no task of this simulated world";
  return task;
}

uint64_t SimWorld::NextRandom() { return MixBits(random_state_ += 0x9E3779B97F4A7C15u); }

bool SimWorld::CanRun(const Task& task) const {
  return !task.ended && task.held_until <= now_ && (task.deadline <= now_ || AnyDone(task.events));
}

// One pass counts those that can run and keeps each with the right chance; time moves only when there is none.
SimWorld::Task* SimWorld::ChooseNext() {
  for (;;) {
    Task* chosen = nullptr;
    uint64_t candidates = 0;
    Nanoseconds next_time = kForever;
    for (const auto& task : tasks_) {
      if (task->ended) continue;
      if (CanRun(*task)) {
        if (NextRandom() % ++candidates == 0) chosen = task.get();
      } else {
        const bool ready = AnyDone(task->events);
        next_time = std::min(next_time, std::max(task->held_until, ready ? now_.load() : task->deadline));
      }
    }
    if (chosen != nullptr) return chosen;
    if (next_time == kForever) return nullptr;
    now_ = std::max(now_.load(), next_time);
  }
}

void SimWorld::Yield(std::unique_lock<std::mutex>& lock, Task* self) {
  Task* next = ChooseNext();
  const bool all_ended = std::all_of(tasks_.begin() + 1, tasks_.end(), [](const auto& task) { return task->ended; });
  if (next == nullptr && all_ended && tasks_[0]->events.empty())
    next = tasks_[0].get();  // its destructor waits for this
  CHECK(next != nullptr) << "deadlock in the simulated world, seed " << options_.seed << ":\n" << ReportLocked();
  trace_hash_ = MixBits(trace_hash_ ^ MixBits(next->number * 0x10001 + static_cast<uint64_t>(now_)));
  next->held_until = 0;
  running_ = next;
  if (next == self) return;
  next->baton.notify_one();
  if (!self->ended) self->baton.wait(lock, [&] { return running_ == self; });
}

std::string SimWorld::ReportLocked() const {
  std::string text = absl::StrCat("time ", now_.load(), " ns\n");
  for (const auto& task : tasks_) {
    if (task->ended) continue;
    absl::StrAppend(&text, "  ", task->name, task.get() == running_ ? " (runs or gave up the baton last)" : "",
                    ": waits for ", task->events.size(), " events ",
                    task->deadline == kForever ? "for ever" : absl::StrCat("until ", task->deadline, " ns"), "\n");
  }
  return text;
}

}  // namespace sluice
