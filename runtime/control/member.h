// A process's half of the control plane, in every process (process 0 too): reaches the coordinator, says who it is,
// shows that it lives, and learns when the job begins and why it ends. A state machine without sockets, threads or a
// clock, as Coordinator is. Its shell keeps one connection at a time. Threads: one at a time.
//
//   waiting <-> connecting -> presenting -> joining -> running -> leaving -> ended (OK)
//      ^________closed____________/            \________\____________\____> ended (first cause)
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "runtime/control/clock_offset.h"
#include "runtime/control/protocol.h"
#include "runtime/control/tick_clock.h"

namespace sluice {

class Member {
 public:
  struct Options {
    ProcessIdentity self;
    std::string token;
    std::string coordinator;  // "host:port", for messages
    ControlLimits limits;
    // A number that changes when something moves in this process; null: none is known.
    std::function<uint64_t()> moves;
  };
  Member(Options options, Nanoseconds now);

  // What became of Connect: the connection stands, or (also later) it is gone.
  void Opened(Nanoseconds now);
  void Closed(const std::string& why, Nanoseconds now);
  void Received(absl::string_view bytes, Nanoseconds now);
  // Time has passed. Wanted at next_tick(); earlier does no harm.
  void Tick(Nanoseconds now);

  // All three: FAILED_PRECONDITION unless running, or the cause after the end; RESOURCE_EXHAUSTED: larger than a frame.
  absl::Status SendBlob(const std::string& name, std::string blob);
  absl::Status Report(std::string bytes);
  absl::Status Leave();
  // Ends the job everywhere; Ended follows soon, with the first cause, which may be another's.
  void Abort(const absl::Status& cause, Nanoseconds now);

  ControlOutputs TakeOutputs();
  Nanoseconds next_tick() const;
  bool ended() const { return state_ == State::kEnded; }
  ClockOffset clock_offset() const { return clock_.best(); }
  // Of all processes together, as process 0 has last said: changes while anything in the job moves.
  uint64_t job_moves() const { return job_moves_; }

 private:
  enum class State : uint8_t {
    kWaiting,     // for the next attempt
    kConnecting,  // told the shell to
    kPresenting,  // sent Hello
    kJoining,     // was welcomed, others are missing
    kRunning,
    kLeaving,   // has left, others haven't
    kAborting,  // sent Abort, waits for the first cause
    kEnded,
  };
  bool is_welcome() const { return state_ >= State::kJoining && state_ <= State::kAborting; }

  void TakeFrame(proto::ControlFrame& frame, Nanoseconds now);
  void TakeWelcome(const proto::ControlFrame::Welcome& welcome, Nanoseconds now);
  bool TakeNews(proto::ControlFrame& frame, Nanoseconds now);
  void SendHeartbeat(Nanoseconds now);
  // The coordinator is not what it should be, or not there any more.
  void Despair(const absl::Status& why);
  void End(const absl::Status& status);
  absl::Status SendIfRunning(const proto::ControlFrame& frame);
  void Send(const proto::ControlFrame& frame, bool only_this = false);

  const Options options_;
  State state_ = State::kConnecting;
  absl::Status cause_;  // of the end; while aborting, this process's own
  bool connected_ = false;
  std::string last_error_;  // of the last attempt to reach process 0
  FrameReader reader_;
  ClockOffsetEstimate clock_;
  uint64_t job_moves_ = 0;
  int replies_ = 0;
  Nanoseconds heartbeat_limit_;
  Nanoseconds heartbeat_due_ = kForever;
  Nanoseconds heard_ = 0;
  Nanoseconds retry_ = kForever;
  Nanoseconds abort_deadline_ = kForever;
  const Nanoseconds join_deadline_;
  TickClock ticks_;
  ControlOutputs outputs_;
};

}  // namespace sluice
