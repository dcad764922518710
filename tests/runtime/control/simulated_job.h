// A whole job's control plane in virtual time: one Coordinator and many Members on a network that is slow, tears
// bytes apart and loses processes, all from a seed. Each process has a clock of its own. After it has joined, every
// member works through a small script: one exchange of blobs, then for each broadcast of process 0 a report, then
// Leave.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "runtime/control/coordinator.h"
#include "runtime/control/member.h"

namespace sluice {

struct SimulatedJobOptions {
  uint64_t seed = 1;
  int processes = 3;
  int broadcasts = 10;
  Nanoseconds latency_max = 20 * kMillisecond;
  int64_t bytes_per_second = 0;               // of each connection and direction; 0: without bound
  int64_t report_bytes = 0;                   // that each report is longer than its number
  Nanoseconds start_within = 2 * kSecond;     // processes start at different times
  Nanoseconds work_max = 200 * kMillisecond;  // before each report
  ControlLimits limits;
};

class SimulatedJob {
 public:
  explicit SimulatedJob(const SimulatedJobOptions& options);

  // Faults; to be set before Run(). Times count from the beginning.
  void ChangeIdentity(int process, const std::function<void(ProcessIdentity*)>& change);
  void NeverStart(int process) { processes_[process].starts = kForever; }
  // Its connections close, as the system does for a process that was killed.
  void Kill(int process, Nanoseconds at);
  // Nothing reaches it or comes from it any more, and nobody is told.
  void CutOff(int process, Nanoseconds at);
  // It does nothing for a time.
  void Stall(int process, Nanoseconds at, Nanoseconds duration);
  void Abort(int process, Nanoseconds at, const absl::Status& cause);
  // It says something that no member says, on its own connection.
  void SayGarbage(int process, Nanoseconds at, std::string bytes);
  // The first connections that it makes break at once.
  void BreakConnections(int process, int count) { processes_[process].breaks = count; }
  // Somebody connects and says `bytes`.
  void AddStranger(Nanoseconds at, std::string bytes);

  void Run(Nanoseconds until);

  struct Outcome {
    std::optional<absl::Status> ended;
    Nanoseconds ended_at = 0;
    std::vector<std::string> blobs;
    std::vector<std::string> broadcasts;
  };
  const Outcome& outcome(int process) const { return processes_[process].outcome; }
  const Outcome& coordinator_outcome() const { return coordinator_outcome_; }
  const std::vector<std::string>& reports(int process) const { return processes_[process].reports; }
  bool coordinator_finished() const { return coordinator_->finished(); }
  const Member& member(int process) const { return *processes_[process].member; }
  // By how much process 0's clock is ahead.
  Nanoseconds true_offset(int process) const { return processes_[0].clock - processes_[process].clock; }
  Nanoseconds random(Nanoseconds max) { return std::uniform_int_distribution<Nanoseconds>(0, max)(random_); }
  int notes() const { return notes_; }

 private:
  struct Process {
    ProcessIdentity identity;
    Nanoseconds clock = 0;  // ahead of the simulation's
    Nanoseconds starts = 0;
    bool gone = false;     // killed
    bool cut_off = false;  // can't be reached
    Nanoseconds stalled_until = 0;
    int breaks = 0;
    int connection = -1;
    std::unique_ptr<Member> member;
    Nanoseconds tick = kForever;  // next one planned
    Outcome outcome;
    std::vector<std::string> reports;  // as the coordinator got them
  };
  struct Connection {
    int process = -1;  // -1: a stranger
    bool server_open = false, client_open = true;
    Nanoseconds to_server = 0, to_client = 0;  // when the last piece under way arrives
  };
  struct Step {
    Nanoseconds at;
    int64_t order;
    int process;  // on which it runs; -1: nobody's
    std::function<void()> run;
    bool operator>(const Step& other) const { return std::pair(at, order) > std::pair(other.at, other.order); }
  };

  void At(Nanoseconds time, int process, std::function<void()> run);
  Nanoseconds Clock(int process) const { return now_ + processes_[process].clock; }
  void StartCoordinator();
  void StartMember(int process);
  int Connect(int process);
  // When `bytes` arrive that follow those that arrive at `last`.
  Nanoseconds Arrival(Nanoseconds last, size_t bytes);
  void SendToServer(int connection, std::string bytes);
  void SendToClient(int connection, const std::string& bytes);
  void CloseAtServer(int connection, Nanoseconds at, const std::string& why);
  void CloseAtClient(int connection, Nanoseconds at, const std::string& why);
  void ApplyCoordinator();
  void ApplyMember(int process);
  void DoForMember(int process, ControlOutput& output);
  void Work(int process, const std::string& broadcast);

  const SimulatedJobOptions options_;
  std::mt19937_64 random_;
  Nanoseconds now_ = 0;
  int64_t order_ = 0;
  std::priority_queue<Step, std::vector<Step>, std::greater<>> steps_;
  std::unique_ptr<Coordinator> coordinator_;
  Nanoseconds coordinator_tick_ = kForever;
  Outcome coordinator_outcome_;
  std::vector<Process> processes_;
  std::vector<Connection> connections_;
  int reports_ = 0;
  int notes_ = 0;
};

}  // namespace sluice
