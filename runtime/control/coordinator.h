// Process 0's half of the control plane: who takes part, whether all agree, who is alive, and what everybody must hear.
// A state machine without sockets, threads or a clock: the shell tells it what happened and at what time, then does
// what TakeOutputs() says, in that order. It trusts no connection: one that has not shown the job's token may send one
// small frame within a short time and can end nothing but itself. Threads: one at a time.
//
//   joining --all there and agree--> running --all have left--> ended (OK)
//      |                                |
//      +--------any failure-------------+----> ended (first cause)
#pragma once

#include <string>
#include <unordered_map>

#include "absl/strings/string_view.h"
#include "runtime/control/blob_exchange.h"
#include "runtime/control/protocol.h"
#include "runtime/control/roll_call.h"
#include "runtime/control/tick_clock.h"

namespace sluice {

class Coordinator {
 public:
  struct Options {
    RollCall::Options roll;
    std::string token;  // not empty
    ControlLimits limits;
  };
  Coordinator(Options options, Nanoseconds now);

  // A connection from `address` was accepted. Numbers are not used again.
  void Opened(ConnectionId id, const std::string& address, Nanoseconds now);
  void Received(ConnectionId id, absl::string_view bytes, Nanoseconds now);
  // It is gone, whoever closed it. The last call for this number.
  void Closed(ConnectionId id, const std::string& why, Nanoseconds now);
  // Time has passed. Wanted at next_tick(); earlier does no harm.
  void Tick(Nanoseconds now);

  // To all processes, process 0 too. RESOURCE_EXHAUSTED: larger than a frame. FAILED_PRECONDITION: the job doesn't run.
  absl::Status Broadcast(std::string bytes);
  // Ends the job. The first cause wins.
  void Abort(const absl::Status& cause, Nanoseconds now);

  ControlOutputs TakeOutputs();
  Nanoseconds next_tick() const;
  // Whether more connections should be accepted now.
  bool accepting() const;
  // The job has ended and every process has been told (when it ended early, of those that come within
  // limits.farewell): nothing is left to do.
  bool finished() const { return phase_ == Phase::kEnded && process_connections_ == 0 && farewell_ == kForever; }

 private:
  enum class Phase : uint8_t { kJoining, kRunning, kEnded };
  struct Connection {
    ConnectionId id;
    std::string address;
    FrameReader reader;
    Nanoseconds opened = 0;
    Nanoseconds heard = 0;
    Nanoseconds spoken = 0;  // something was sent
    int process = -1;        // -1: a stranger
    uint64_t moves = 0;      // as its last heartbeat said
    bool closing = false;    // the shell has been told to
  };

  void TakeHello(Connection& from, const proto::ControlFrame& frame, Nanoseconds now);
  void Admit(Connection& from, const ProcessIdentity& who, Nanoseconds now);
  void TakeFrame(Connection& from, proto::ControlFrame& frame, Nanoseconds now);
  void TakeHeartbeat(Connection& from, const proto::ControlFrame::Heartbeat& heartbeat, Nanoseconds now);
  void TakeBlob(Connection& from, proto::ControlFrame::Blob& blob, Nanoseconds now);
  void TakeLeave(const Connection& from, Nanoseconds now);
  // What came on this connection makes no sense: the end of a stranger's connection, or of the job.
  void Distrust(Connection& from, const absl::Status& why, Nanoseconds now);
  void Refuse(Connection& from, const absl::Status& why);
  void RefuseAfterTheEnd(Connection& from, const ProcessIdentity& who);
  void End(const absl::Status& status, Nanoseconds now);

  void CheckStrangers(Nanoseconds now);
  void CheckHeartbeats(Nanoseconds now);
  void SendHeartbeats(Nanoseconds now);
  void CheckExchanges(Nanoseconds now);

  void SendToAll(const proto::ControlFrame& frame, bool only_this);
  void Send(Connection& to, const proto::ControlFrame& frame);
  void Close(Connection& connection);
  void NoteStranger(const Connection& from, const absl::Status& why);

  const Options options_;
  Phase phase_ = Phase::kJoining;
  absl::Status cause_;  // of the end
  RollCall roll_;
  BlobExchange exchange_;
  std::unordered_map<ConnectionId, Connection> connections_;
  int process_connections_ = 0;  // of those, not the strangers'
  uint64_t moves_ = 0;           // of all processes
  int notes_ = 0;
  Nanoseconds farewell_ = kForever;  // ended early: until when latecomers are told
  const Nanoseconds join_deadline_;
  Nanoseconds now_;  // of the last call
  TickClock ticks_;
  ControlOutputs outputs_;
};

}  // namespace sluice
