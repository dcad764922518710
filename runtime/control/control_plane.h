// The control plane of a job of several processes, as one process sees it: a meeting place in process 0, blobs and
// messages between the processes, and one end for all of them. Opaque bytes only; it knows no step and no tensor.
//
// Threads: any. Calls block where they say so, and always end: a process that dies, stops or is cut off ends the job
// within the heartbeat's limit, and with it every call, with the first cause. A thread of its own answers heartbeats,
// whatever the process computes; the world must be a real one. Where a deadline passes, it is DEADLINE_EXCEEDED and the
// job goes on.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/event.h"
#include "base/ids.h"
#include "base/world.h"
#include "runtime/control/clock_offset.h"
#include "runtime/control/protocol.h"

namespace sluice {

struct JoinOptions {
  int process = 0;
  int processes = 1;
  int world_size = 1;            // ranks of the job
  std::vector<WorldRank> ranks;  // that this process hosts
  std::vector<Fingerprint> fingerprints;
  std::string token;      // of the job: who doesn't know it can't join. Not empty
  std::string host_name;  // of this machine, for messages

  // Where process 0 is reached: a name or an address, and the port on which it listens.
  std::string host = "127.0.0.1";
  uint16_t port = 0;
  // Process 0: the address of this machine to listen on; port 0: any free one. Called when it listens, by the thread
  // that joins, with the port; the others can be started then.
  std::string bind = "127.0.0.1";
  std::function<void(int port)> on_listening;

  // When it is done, Join() gives up with its status (CANCELLED where that is OK), and the job ends. Null: never.
  EventRef cancel;

  // A line for the log, on the control thread: connections that were turned away. Never holds the token.
  std::function<void(const std::string& text)> on_note;
  ControlLimits limits;
};

class ControlPlane {
 public:
  // Blocks until all processes have joined and agree, which may take limits.join. Errors, beside the causes with which
  // a job ends: INVALID_ARGUMENT: of the options. UNAVAILABLE: the port is taken. ALREADY_EXISTS: this process number
  // or a rank is there already. UNAUTHENTICATED: another token. FAILED_PRECONDITION: the processes don't agree; says in
  // what. DEADLINE_EXCEEDED: names who is missing. The world outlives it.
  static absl::StatusOr<std::unique_ptr<ControlPlane>> Join(World* world, JoinOptions options);
  // Without Leave() it ends the job for all.
  ~ControlPlane();

  // Gives this process's blob and blocks until every process has called it with the same name; returns all blobs in
  // order of process. One name may be used again when it is done.
  absl::StatusOr<std::vector<std::string>> ExchangeBlobs(const std::string& name, std::string mine);

  // To all processes, this one too, in order. REQUIRES: process 0.
  absl::Status Broadcast(std::string bytes);
  absl::StatusOr<std::string> NextBroadcast(Nanoseconds deadline);

  struct ProcessReport {
    int process = 0;
    std::string bytes;
  };
  // To process 0; those of one process come in order.
  absl::Status Report(std::string bytes);
  // REQUIRES: process 0.
  absl::StatusOr<ProcessReport> NextReport(Nanoseconds deadline);

  // Ends the job for all. Returns at once; cause() follows, with the first cause, which may be another's.
  void Abort(const absl::Status& cause);
  // Done when the job has been ended, with the first cause as its status. Pending for ever when all have left.
  const EventRef& cause() const;

  ClockOffset clock_offset() const;

  // `moves` returns a number that changes when something moves in this process, and is asked by the control thread with
  // each heartbeat; null: not any more. It must not call this object.
  void SetMoves(std::function<uint64_t()> moves);
  // Changes while anything moves in any process; as old as a heartbeat.
  uint64_t job_moves() const;

  // This process has done its work: blocks until all have said so, or until the job is ended, with the cause. After it
  // the object can only be destroyed.
  absl::Status Leave(Nanoseconds deadline);

 private:
  class Impl;
  explicit ControlPlane(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace sluice
