// What Coordinator and Member have in common: who a process is, the limits, and what a state machine asks its shell to
// do. Plain values.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "base/ids.h"
#include "base/time.h"
#include "runtime/control/frame.h"

namespace sluice {

// A new one comes when two programs would misunderstand each other.
inline constexpr int kControlFormatVersion = 1;

// A silence is death only after several heartbeats were missed.
inline constexpr int kHeartbeatsPerLimit = 5;

// One TCP connection, numbered by the shell and never reused.
using ConnectionId = Id<struct ConnectionTag>;

// What must be equal in all processes, by name: "job", "plan", "program version". Values are hashes or short texts;
// errors show how they begin.
struct Fingerprint {
  std::string name;
  std::string value;
};

struct ProcessIdentity {
  int process = 0;               // 0 ... processes-1
  std::vector<WorldRank> ranks;  // that it hosts; at least one
  std::string host;              // for messages
  int64_t process_id = 0;        // the operating system's, for messages
  uint64_t instance = 0;         // a random number of this start of the process
  std::vector<Fingerprint> fingerprints;
};

struct ControlLimits {
  Nanoseconds heartbeat = 10 * kSecond;    // a silence this long is death; process 0's setting holds for all
  Nanoseconds join = 120 * kSecond;        // until all processes must have joined, from the start of each
  Nanoseconds exchange = 120 * kSecond;    // from the first blob of a name to the last
  Nanoseconds hello = 5 * kSecond;         // from a connection's beginning until it has said who it is
  Nanoseconds retry = 100 * kMillisecond;  // between two attempts to reach process 0
  Nanoseconds abort = 2 * kSecond;         // for process 0 to answer a member's abort
  Nanoseconds farewell = 2 * kSecond;      // that process 0 stays for latecomers when the job ends before it began
  int64_t frame_bytes = 64 << 20;          // of one frame, and of all blobs that are being exchanged
  int64_t hello_bytes = 64 << 10;          // of the first frame: the sender may be anybody
  int64_t queue_bytes = 256 << 20;         // of what has arrived, or waits to be sent on one connection
  int strangers = 256;                     // connections that haven't said who they are; more are not accepted
};

// INVALID_ARGUMENT: one that no job can work with.
absl::Status CheckLimits(const ControlLimits& limits);

// What a state machine wants done, in this order.

// Member: connect to process 0, then call Opened() or Closed().
struct Connect {};
struct SendFrame {
  ConnectionId connection;
  WireBytes bytes;
  bool only_this = false;  // frames queued before it, of which no byte is sent, need not be sent any more
};
// Send what is queued, then close, and call Closed() within a bounded time.
struct CloseConnection {
  ConnectionId connection;
};
// All processes have joined and agree.
struct Started {};
struct BlobsArrived {
  std::string name;
  std::vector<std::string> blobs;
};
struct BroadcastArrived {
  std::string bytes;
};
struct ReportArrived {
  int process = 0;
  std::string bytes;
};
// The job has ended for this process: OK after all have left in order, else with the first cause.
struct Ended {
  absl::Status status;
};
// A line for the log.
struct Note {
  std::string text;
};
using ControlOutput = std::variant<Connect, SendFrame, CloseConnection, Started, BlobsArrived, BroadcastArrived,
                                   ReportArrived, Ended, Note>;
using ControlOutputs = std::vector<ControlOutput>;

// "process 2 (host b, ranks 4-5)"
std::string ProcessName(int process, const std::string& host, const std::vector<WorldRank>& ranks);
// "0-3, 7"; the numbers ascend.
std::string NumberRanges(const std::vector<int>& numbers);

// Between `code` of the wire, which may be anything, and a status that is not OK.
absl::Status StatusFromWire(int code, const std::string& message);
// A status with a message short enough for every frame.
absl::Status Shortened(const absl::Status& status);

proto::ControlFrame HelloFrame(const ProcessIdentity& self, const std::string& token);
// REQUIRES: not OK, Shortened().
proto::ControlFrame AbortFrame(const absl::Status& cause);
// "10 s"
std::string Seconds(Nanoseconds time);

}  // namespace sluice
