// The thread that waits in Gloo for one lane of a hub: for the transfers at the lane's head, all of one channel, or for
// a collective. It tells the hub when the one at the head has ended.
//
// Threads: Start() is called under the hub's lock, `ended` by this lane's task without it.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/signal_pool.h"
#include "base/world.h"
#include "runtime/transport/gloo_collective.h"
#include "runtime/transport/gloo_stream.h"

namespace sluice::internal {

class GlooLane {
 public:
  using Ended = std::function<void(const absl::Status& status, Nanoseconds began, Nanoseconds ended)>;

  GlooLane(World* world, std::string name, Ended ended);
  // REQUIRES: all that was started has ended.
  ~GlooLane();

  // Sends a small message to a peer that waits for it: the data is copied, so the send has ended when this returns.
  // False: it is not small, or the peer doesn't wait yet. REQUIRES: nothing else has been started and not ended.
  bool SendAtOnce(GlooLink* link, uint64_t tag, const std::byte* data, int64_t bytes);
  // Starts a transfer behind those of the same channel that have not ended. Never blocks.
  void Start(GlooLink* link, Direction direction, uint64_t tag, std::byte* data, int64_t bytes);
  // REQUIRES: nothing else has been started and not ended.
  void Start(RemoteCollective collective);

 private:
  // A message whose data is here until Gloo has given it to the kernel.
  struct Copied {
    std::unique_ptr<std::byte[]> data;
    std::unique_ptr<GlooMessage> message;
  };

  void Run();
  // Waits for the next piece of the first transfer.
  void Advance();

  World* const world_;
  const Ended ended_;
  const Ref<SignalPool> signals_ = MakeRef<SignalPool>();
  Doorbell bell_{signals_};

  std::mutex mutex_;
  bool closing_ = false;
  int pending_ = 0;  // transfers that have not ended
  std::vector<std::unique_ptr<GlooMessage>> started_;
  std::unique_ptr<RemoteCollective> collective_;
  std::vector<Copied> copied_;  // many, so that the task is woken seldom to look after them

  GlooStream stream_;       // the task's
  Nanoseconds began_ = -1;  // of the first transfer, once its first piece has moved
  EventRef task_;
};

}  // namespace sluice::internal
