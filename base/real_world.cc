#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/world.h"

namespace sluice {
namespace {

// A GPU's events call nobody: look at them this often.
constexpr Nanoseconds kPollInterval = 20 * kMicrosecond;

class ThreadWaker final : public Waker {
 public:
  // Notifies without the lock, or the sleeper would wake only to wait for it.
  void Wake() override {
    {
      std::lock_guard lock(mutex_);
      woken_ = true;
    }
    condition_.notify_one();
  }

  void SleepUntil(std::chrono::steady_clock::time_point deadline, bool forever) {
    std::unique_lock lock(mutex_);
    if (forever) {
      condition_.wait(lock, [&] { return woken_; });
    } else {
      condition_.wait_until(lock, deadline, [&] { return woken_; });
    }
    woken_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  bool woken_ = false;
};

std::optional<size_t> FirstDone(absl::Span<const EventRef> events) {
  for (size_t i = 0; i < events.size(); ++i) {
    if (events[i]->Done()) return i;
  }
  return std::nullopt;
}

void PinTo(const std::vector<int>& processors) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int processor : processors) {
    if (processor >= 0 && processor < CPU_SETSIZE) CPU_SET(processor, &set);
  }
  if (CPU_COUNT(&set) > 0) sched_setaffinity(0, sizeof(set), &set);  // a wish: an error leaves the task unpinned
}

class RealWorld final : public World {
 public:
  // A task may start others until it ends.
  ~RealWorld() override {
    for (;;) {
      std::vector<std::thread> threads;
      {
        std::lock_guard lock(mutex_);
        threads.swap(threads_);
      }
      if (threads.empty()) return;
      for (std::thread& thread : threads) thread.join();
    }
  }

  Nanoseconds Now() const override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start_).count();
  }

  EventRef Spawn(TaskOptions options, std::function<void()> body) override {
    auto ended = MakeRef<Signal>();
    std::lock_guard lock(mutex_);
    threads_.emplace_back([this, ended, options = std::move(options), body = std::move(body)]() mutable {
      pthread_setname_np(pthread_self(), options.name.substr(0, 15).c_str());
      PinTo(options.processors);
      body();
      body = nullptr;
      ended->Set(absl::OkStatus(), Now());
    });
    return ended;
  }

  std::optional<size_t> WaitAny(absl::Span<const EventRef> events, Nanoseconds deadline) override {
    if (auto done = FirstDone(events)) return done;
    ThreadWaker waker;
    for (const EventRef& event : events) event->Watch(&waker);
    std::optional<size_t> done;
    while (!(done = FirstDone(events)) && Now() < deadline) {
      const bool poll = std::any_of(events.begin(), events.end(), [](const auto& e) { return e->NeedsPolling(); });
      const Nanoseconds until = poll ? std::min(deadline, Now() + kPollInterval) : deadline;
      const bool forever = until > kForever / 2;  // more than a century, and the sum below would overflow
      waker.SleepUntil(start_ + std::chrono::nanoseconds(forever ? 0 : until), forever);
    }
    for (const EventRef& event : events) event->Unwatch(&waker);
    return done;
  }

  uint64_t Random() override {
    std::lock_guard lock(mutex_);
    return random_();
  }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::mutex mutex_;
  std::vector<std::thread> threads_;
  std::mt19937_64 random_{std::random_device{}()};
};

}  // namespace

absl::Status World::Wait(const EventRef& event) {
  WaitAny({&event, 1}, kForever);
  return event->status();
}

std::unique_ptr<World> NewRealWorld() { return std::make_unique<RealWorld>(); }

}  // namespace sluice
