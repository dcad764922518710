// An Event happens once: it is pending, then done with a Status for ever. Device and Transport give out their own
// kinds (a GPU's event is the stream's); Signal is the one that host code completes.
//
// Threads: any thread may poll or wait. An event is done at one instant for all threads, and what its completer wrote
// before is visible to whoever has seen it done.
#pragma once

#include <atomic>
#include <mutex>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "base/ref.h"
#include "base/time.h"

namespace sluice {

// Something that sleeps until one of several events is done. Belongs to a World.
class Waker {
 public:
  virtual void Wake() = 0;

 protected:
  ~Waker() = default;
};

class Event : public RefCounted {
 public:
  // Whether it has happened. Never blocks.
  virtual bool Done() const = 0;
  // How it ended, and when what it stands for began and ended (World time). REQUIRES: Done().
  virtual absl::Status status() const = 0;
  virtual Nanoseconds began() const = 0;
  virtual Nanoseconds ended() const = 0;
  // Asks for a Wake() when the event is done, and maybe for others before that, when it becomes known what will end it.
  // False: already done, or this kind of event calls nobody when it is (then NeedsPolling() is true and the World
  // polls; it may turn true with a Wake()). A watcher must Unwatch() before it dies.
  virtual bool Watch(Waker* waker) = 0;
  virtual void Unwatch(Waker* waker) = 0;
  virtual bool NeedsPolling() const { return false; }
  // What a device has to wait for: this event itself, or another one that it stands for; null until that is known.
  // Lives as long as this one does.
  virtual const Event* StandsFor() const { return this; }
};

using EventRef = Ref<Event>;

// An event that host code completes. Whoever completes it holds a handle to it.
class Signal : public Event {
 public:
  bool Done() const override { return done_.load(std::memory_order_acquire); }
  absl::Status status() const override;
  Nanoseconds began() const override { return began_; }
  Nanoseconds ended() const override { return ended_; }
  bool Watch(Waker* waker) override;
  void Unwatch(Waker* waker) override;

  // Completes the event and wakes its watchers. The first call wins; later ones return false and change nothing.
  bool Set(absl::Status status, Nanoseconds began, Nanoseconds ended);
  bool Set(absl::Status status, Nanoseconds now) { return Set(std::move(status), now, now); }

 protected:
  // Makes a pooled signal pending again. REQUIRES: no handle and no watcher is left.
  void Reset();

 private:
  std::atomic<bool> done_{false};
  mutable std::mutex mutex_;
  absl::Status status_;
  Nanoseconds began_ = 0;
  Nanoseconds ended_ = 0;
  absl::InlinedVector<Waker*, 4> wakers_;
};

// An event that has happened already.
EventRef DoneEvent();

}  // namespace sluice
