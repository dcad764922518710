// Who is to take part in a job and who has come: the coordinator's list of processes, and the checks that a newcomer
// has to pass. Knows no connections but their numbers. Errors name both sides.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/control/protocol.h"

namespace sluice {

class RollCall {
 public:
  struct Options {
    int processes = 1;
    int world_size = 1;                     // world ranks 0 ... world_size-1, each at one process
    uint64_t instance = 0;                  // of process 0
    std::vector<Fingerprint> fingerprints;  // of process 0
  };
  explicit RollCall(Options options);

  // May it take its place? INVALID_ARGUMENT: no such process or rank. ALREADY_EXISTS: somebody else has it.
  absl::Status Check(const ProcessIdentity& who) const;
  // Does it mean to run the same? FAILED_PRECONDITION with the first difference.
  absl::Status Agrees(const ProcessIdentity& who) const;
  // REQUIRES: Check() and Agrees() are OK.
  void Join(const ProcessIdentity& who, ConnectionId connection);
  // Remembered for Missing().
  void Refuse(const ProcessIdentity& who, const absl::Status& why);
  // It has done its work. REQUIRES: it has joined.
  void Leave(int process);

  bool all_joined() const { return joined_ == options_.processes; }
  bool all_left() const { return left_ == options_.processes; }
  bool has_left(int process) const { return entries_[process].left; }
  ConnectionId connection(int process) const { return entries_[process].connection; }
  // "process 2 (host b, ranks 4-5)"
  std::string name(int process) const;
  // "processes 2, 5-7 of 8 have not joined", with why some were refused.
  std::string Missing() const;
  // FAILED_PRECONDITION: ranks that no process hosts. REQUIRES: all_joined().
  absl::Status CheckRanks() const;

 private:
  struct Entry {
    bool joined = false;
    bool left = false;
    ConnectionId connection;
    ProcessIdentity who;
    std::string refused;  // why, the last time
  };
  absl::Status CheckRank(WorldRank rank, const ProcessIdentity& who) const;

  const Options options_;
  std::vector<Entry> entries_;   // per process
  std::vector<int> process_of_;  // per world rank; -1: none yet
  int joined_ = 0;
  int left_ = 0;
};

}  // namespace sluice
