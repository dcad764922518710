// The one place that knows Gloo: connections to other processes, and messages over them.
//
// A link joins two processes by two Gloo pairs, one a direction, so that sending never waits behind a message that is
// coming in. A message has a tag and moves in pieces; messages of one tag match in posting order. Gloo sends a piece
// only once the other end has posted memory for it, which is the rendezvous that Transport promises.
//
// What had to be worked around in Gloo (of 2022):
//   - a wait that times out closes all pairs of its context: waits here have no deadline, and each link has a context
//     of its own, so that the last, deliberate one closes nothing else;
//   - of operations that had begun, nobody hears when a pair breaks: each link has an ear, a task that always waits for
//     the peer's last words, is told in every case, and interrupts the messages;
//   - its thread spins while another thread that it has preempted is inside a pair: what isn't small is posted by that
//     thread itself;
//   - bytes that a peer sends for memory that nobody has posted, or more than was posted, end the program: sizes are
//     agreed on before data is sent.
//
// Threads: a message is used by one thread at a time, but for Interrupt(); all else by any.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/world.h"

namespace gloo::transport {
class Context;
class Device;
class Pair;
class UnboundBuffer;
}  // namespace gloo::transport

namespace sluice::internal {

class GlooMessage;
class GlooPoster;

// Where this process listens, and the thread that moves the bytes of all links.
class GlooDevice {
 public:
  ~GlooDevice();
  // `where`: a network interface ("eth0"), an address or a host name. INVALID_ARGUMENT: nothing can listen there.
  static absl::StatusOr<std::unique_ptr<GlooDevice>> Create(const std::string& where);
  // An address that other hosts can reach: of the first interface that is up, is no loopback and has one.
  static absl::StatusOr<std::string> AddressForOthers();

 private:
  friend class GlooLink;
  explicit GlooDevice(std::shared_ptr<gloo::transport::Device> device);
  std::shared_ptr<gloo::transport::Device> device_;
  std::unique_ptr<GlooPoster> poster_;
};

class GlooLink {
 public:
  // Listens for `peer` ("process 1 (rank 2)", for errors). World and device outlive the link.
  static absl::StatusOr<std::unique_ptr<GlooLink>> Listen(World* world, const GlooDevice& device, std::string peer);
  ~GlooLink();
  const std::string& address() const { return address_; }

  // Blocks until both ends have connected and shown the token that the other was told; both ends call it, one of them
  // with `calls_first`. UNAVAILABLE: the peer, or somebody else, didn't, within seconds; the link is of no use then.
  struct Peer {
    std::string address;
    std::string token;
    bool calls_first = false;
  };
  absl::Status Connect(const std::string& token, const Peer& peer);

  // Whether the peer has posted memory for a message with this tag that has not been sent yet.
  bool PeerWaits(uint64_t tag) const;

  // Starts the ear. `ended` is called once, by a task: OK when the peer has said goodbye, the cause with which it
  // failed, or UNAVAILABLE when the connection has broken.
  void Watch(std::function<void(const absl::Status& last_words)> ended);
  // Says the last words, a goodbye (OK) or a cause. Never blocks; only the first call counts.
  void Say(const absl::Status& last_words);
  // Waits a while until the last words are on their way, and ends the ear: `ended` is not called any more.
  void Close();
  // Ends all messages, now and later: those that had moved completely end well.
  void Interrupt();
  // Of messages, in both directions.
  int64_t bytes_moved() const { return bytes_moved_.load(std::memory_order_relaxed); }
  // Why a message failed with `status`, as well as it can be told: the peer's last words if there are any.
  absl::Status CauseOf(const absl::Status& status);

 private:
  friend class GlooMessage;
  friend class GlooPoster;
  GlooLink(World* world, std::string peer);
  void ConnectPairs(const Peer& peer);
  void ShowTokens(const std::string& token, const std::string& wanted);
  void Hear(const std::function<void(const absl::Status&)>& ended);
  // REQUIRED before a wait that may run out of time, since Gloo closes the pairs then: the poster is kept away from
  // them, or it could wait for a pair that waits for the poster's thread; and the last words, if they have been said,
  // get a while to reach the kernel, or they would be cut off.
  void PrepareToClose();
  // Runs what calls Gloo; an exception becomes UNAVAILABLE with the peer's name.
  absl::Status Try(const std::function<void()>& body) const;

  World* const world_;
  const std::string peer_;
  GlooPoster* poster_ = nullptr;
  std::string address_;
  std::unique_ptr<char[]> hears_, says_;  // until the pairs are closed
  std::shared_ptr<gloo::transport::Context> context_;
  gloo::transport::Pair* out_ = nullptr;
  gloo::transport::Pair* in_ = nullptr;
  std::unique_ptr<gloo::transport::UnboundBuffer> ear_, mouth_;
  EventRef ear_ended_;
  Ref<Signal> heard_;

  std::atomic<int64_t> bytes_moved_{0};
  bool posts_ = true;  // the poster's
  std::mutex speaking_;
  std::mutex mutex_;
  bool interrupted_ = false;
  bool has_spoken_ = false;
  std::vector<GlooMessage*> messages_;
};

enum class Direction : uint8_t { kSend, kReceive };

// One message in one direction. Gloo touches its memory until it is done or destroyed.
class GlooMessage {
 public:
  // REQUIRES: bytes > 0; the receiver may have room for more than comes, if that fits one piece.
  GlooMessage(GlooLink* link, Direction direction, uint64_t tag, std::byte* data, int64_t bytes);
  ~GlooMessage();
  GlooMessage(const GlooMessage&) = delete;
  GlooMessage& operator=(const GlooMessage&) = delete;

  GlooLink* link() const { return link_; }
  int64_t pieces() const { return pieces_; }
  bool posted() const { return posted_ == pieces_; }
  bool done() const { return waited_ == pieces_; }
  // Has Gloo's thread take the next piece. REQUIRES: !posted(). An error comes with WaitForPiece().
  void PostPiece();
  // Gives Gloo the next piece at once: for small ones, where the way through another thread counts.
  void PostPieceHere();
  // Blocks until the next piece has moved. REQUIRES: it is posted.
  absl::Status WaitForPiece();
  // Later waits end soon: well, if the piece has moved.
  void Interrupt();

 private:
  friend class GlooPoster;
  bool Wait(int64_t milliseconds);
  int64_t BytesOf(int64_t piece) const;
  // Calls Gloo. What fails is found by the next wait.
  void Give(int64_t piece);

  GlooLink* const link_;
  const Direction direction_;
  const uint64_t tag_;
  const int64_t bytes_;
  const int64_t pieces_;
  int64_t posted_ = 0;
  int64_t waited_ = 0;
  std::atomic<int64_t> given_{0};
  bool woken_ = false;  // by an interruption
  std::unique_ptr<gloo::transport::UnboundBuffer> buffer_;
};

}  // namespace sluice::internal
