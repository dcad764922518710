#include "tests/runtime/control/simulated_job.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sluice {
namespace {

constexpr char kToken[] = "secret";

}  // namespace

SimulatedJob::SimulatedJob(const SimulatedJobOptions& options)
    : options_(options), random_(options.seed), processes_(options.processes) {
  for (int process = 0; process < options.processes; ++process) {
    processes_[process].identity = {.process = process,
                                    .ranks = {WorldRank(process)},
                                    .host = absl::StrCat("h", process),
                                    .instance = random_(),
                                    .fingerprints = {{"job", "abc"}, {"plan", "def"}}};
    processes_[process].clock = random(1000 * kSecond);
    processes_[process].starts = random(options.start_within);
  }
}

void SimulatedJob::ChangeIdentity(int process, const std::function<void(ProcessIdentity*)>& change) {
  change(&processes_[process].identity);
}

void SimulatedJob::Kill(int process, Nanoseconds at) {
  At(at, -1, [=, this] {
    processes_[process].gone = true;
    for (size_t id = 0; id < connections_.size(); ++id) {
      const int connection = static_cast<int>(id);
      if (process == 0) CloseAtClient(connection, now_ + random(options_.latency_max), "reset by peer");
      if (connections_[id].process == process) {
        CloseAtServer(connection, now_ + random(options_.latency_max), "reset by peer");
      }
    }
  });
}

void SimulatedJob::CutOff(int process, Nanoseconds at) {
  At(at, -1, [=, this] { processes_[process].cut_off = true; });
}

void SimulatedJob::Stall(int process, Nanoseconds at, Nanoseconds duration) {
  At(at, -1, [=, this] { processes_[process].stalled_until = now_ + duration; });
}

void SimulatedJob::Abort(int process, Nanoseconds at, const absl::Status& cause) {
  At(at, process, [=, this] {
    if (processes_[process].member == nullptr) return;
    processes_[process].member->Abort(cause, Clock(process));
    ApplyMember(process);
  });
}

void SimulatedJob::SayGarbage(int process, Nanoseconds at, std::string bytes) {
  At(at, process, [=, this] {
    if (processes_[process].connection >= 0) SendToServer(processes_[process].connection, bytes);
  });
}

void SimulatedJob::AddStranger(Nanoseconds at, std::string bytes) {
  At(at, -1, [=, this] { SendToServer(Connect(-1), bytes); });
}

void SimulatedJob::At(Nanoseconds time, int process, std::function<void()> run) {
  steps_.push({time, order_++, process, std::move(run)});
}

void SimulatedJob::Run(Nanoseconds until) {
  At(processes_[0].starts, 0, [this] { StartCoordinator(); });
  for (int process = 0; process < options_.processes; ++process) {
    if (processes_[process].starts != kForever) {
      At(processes_[process].starts, process, [=, this] { StartMember(process); });
    }
  }
  while (!steps_.empty() && steps_.top().at <= until) {
    Step step = steps_.top();
    steps_.pop();
    now_ = std::max(now_, step.at);
    if (step.process >= 0) {
      Process& process = processes_[step.process];
      if (process.gone) continue;
      if (process.stalled_until > now_) {
        At(process.stalled_until, step.process, std::move(step.run));
        continue;
      }
    }
    step.run();
  }
}

void SimulatedJob::StartCoordinator() {
  coordinator_ =
      std::make_unique<Coordinator>(Coordinator::Options{.roll = {.processes = options_.processes,
                                                                  .world_size = options_.processes,
                                                                  .instance = processes_[0].identity.instance,
                                                                  .fingerprints = processes_[0].identity.fingerprints},
                                                         .token = kToken,
                                                         .limits = options_.limits},
                                    Clock(0));
  ApplyCoordinator();
}

void SimulatedJob::StartMember(int process) {
  processes_[process].member = std::make_unique<Member>(
      Member::Options{
          .self = processes_[process].identity, .token = kToken, .coordinator = "h0:1", .limits = options_.limits},
      Clock(process));
  ApplyMember(process);
}

// Both ends learn of it later, and only if somebody listens.
int SimulatedJob::Connect(int process) {
  const int id = static_cast<int>(connections_.size());
  connections_.push_back({.process = process});
  if (process >= 0) processes_[process].connection = id;
  const Nanoseconds arrives = now_ + random(options_.latency_max);
  connections_[id].to_server = connections_[id].to_client = arrives;
  At(arrives, -1, [=, this] {
    if ((process >= 0 && processes_[process].cut_off) || processes_[0].cut_off) return;
    if (coordinator_ == nullptr || processes_[0].gone || coordinator_->finished()) {
      return CloseAtClient(id, now_, "connection refused");
    }
    connections_[id].server_open = true;
    At(now_, 0, [=, this] {
      coordinator_->Opened(ConnectionId(id), absl::StrCat("address ", id), Clock(0));
      ApplyCoordinator();
    });
    if (process < 0) return;
    if (processes_[process].breaks-- > 0) {
      CloseAtServer(id, now_, "reset by peer");
      return CloseAtClient(id, now_, "reset by peer");
    }
    At(arrives, process, [=, this] {
      if (!connections_[id].client_open) return;
      processes_[process].member->Opened(Clock(process));
      ApplyMember(process);
    });
  });
  return id;
}

Nanoseconds SimulatedJob::Arrival(Nanoseconds last, size_t bytes) {
  const Nanoseconds on_the_wire =
      options_.bytes_per_second > 0 ? static_cast<Nanoseconds>(bytes) * kSecond / options_.bytes_per_second : 0;
  return std::max(last, now_ + random(options_.latency_max)) + on_the_wire;
}

void SimulatedJob::SendToServer(int connection, std::string bytes) {
  const int process = connections_[connection].process;
  while (!bytes.empty()) {
    const size_t size = std::min<size_t>(bytes.size(), 1 + random(bytes.size() < 100 ? 200 : 20000));
    Nanoseconds& last = connections_[connection].to_server;
    last = Arrival(last, size);
    At(last, 0, [this, connection, process, piece = bytes.substr(0, size)] {
      if ((process >= 0 && processes_[process].cut_off) || processes_[0].cut_off || coordinator_ == nullptr) return;
      if (!connections_[connection].server_open) return;
      coordinator_->Received(ConnectionId(connection), piece, Clock(0));
      ApplyCoordinator();
    });
    bytes.erase(0, size);
  }
}

void SimulatedJob::SendToClient(int connection, const std::string& bytes) {
  const int process = connections_[connection].process;
  if (process < 0) return;
  for (size_t begin = 0; begin < bytes.size();) {
    const size_t size = std::min<size_t>(bytes.size() - begin, 1 + random(20000));
    Nanoseconds& last = connections_[connection].to_client;
    last = Arrival(last, size);
    At(last, process, [this, connection, process, piece = bytes.substr(begin, size)] {
      if (processes_[process].cut_off || processes_[0].cut_off || !connections_[connection].client_open) return;
      processes_[process].member->Received(piece, Clock(process));
      ApplyMember(process);
    });
    begin += size;
  }
}

void SimulatedJob::CloseAtServer(int connection, Nanoseconds at, const std::string& why) {
  At(std::max(at, connections_[connection].to_server), 0, [=, this] {
    const int process = connections_[connection].process;
    if ((process >= 0 && processes_[process].cut_off) || processes_[0].cut_off) return;
    if (coordinator_ == nullptr || !std::exchange(connections_[connection].server_open, false)) return;
    coordinator_->Closed(ConnectionId(connection), why, Clock(0));
    ApplyCoordinator();
  });
}

void SimulatedJob::CloseAtClient(int connection, Nanoseconds at, const std::string& why) {
  const int process = connections_[connection].process;
  if (process < 0) return;
  At(std::max(at, connections_[connection].to_client), process, [=, this] {
    if (processes_[process].cut_off || processes_[0].cut_off) return;
    if (!std::exchange(connections_[connection].client_open, false)) return;
    processes_[process].member->Closed(why, Clock(process));
    ApplyMember(process);
  });
}

void SimulatedJob::ApplyCoordinator() {
  for (ControlOutput& output : coordinator_->TakeOutputs()) {
    if (auto* send = std::get_if<SendFrame>(&output)) {
      SendToClient(send->connection.value(), *send->bytes);
    } else if (auto* close = std::get_if<CloseConnection>(&output)) {
      CloseAtClient(close->connection.value(), now_, "closed");
      CloseAtServer(close->connection.value(), now_ + options_.latency_max, "closed");
    } else if (auto* report = std::get_if<ReportArrived>(&output)) {
      processes_[report->process].reports.push_back(report->bytes.substr(0, report->bytes.find('.')));
      // The next one when all have answered the last.
      const int next = ++reports_ / options_.processes;
      if (reports_ % options_.processes == 0 && next < options_.broadcasts) {
        coordinator_->Broadcast(absl::StrCat(next)).IgnoreError();
        ApplyCoordinator();
      }
    } else if (auto* ended = std::get_if<Ended>(&output)) {
      coordinator_outcome_.ended = ended->status;
      coordinator_outcome_.ended_at = now_;
    } else if (std::holds_alternative<Note>(output)) {
      ++notes_;
    }
  }
  const Nanoseconds next = coordinator_->next_tick() - processes_[0].clock;
  if (next == coordinator_tick_) return;
  coordinator_tick_ = next;
  At(next, 0, [this, next] {
    if (coordinator_tick_ != next) return;
    coordinator_->Tick(Clock(0));
    ApplyCoordinator();
  });
}

void SimulatedJob::ApplyMember(int process) {
  Member& member = *processes_[process].member;
  for (ControlOutput& output : member.TakeOutputs()) DoForMember(process, output);
  const Nanoseconds next = member.next_tick() == kForever ? kForever : member.next_tick() - processes_[process].clock;
  if (next == processes_[process].tick) return;
  processes_[process].tick = next;
  if (next == kForever) return;
  At(next, process, [=, this] {
    if (processes_[process].tick != next) return;
    processes_[process].member->Tick(Clock(process));
    ApplyMember(process);
  });
}

void SimulatedJob::DoForMember(int process, ControlOutput& output) {
  Outcome& outcome = processes_[process].outcome;
  Member& member = *processes_[process].member;
  if (std::holds_alternative<struct Connect>(output)) {
    Connect(process);
  } else if (auto* send = std::get_if<SendFrame>(&output)) {
    SendToServer(processes_[process].connection, *send->bytes);
  } else if (std::holds_alternative<CloseConnection>(output)) {
    connections_[processes_[process].connection].client_open = false;
    CloseAtServer(processes_[process].connection, now_ + random(options_.latency_max), "closed");
  } else if (std::holds_alternative<Started>(output)) {
    member.SendBlob("addresses", absl::StrCat("blob ", process)).IgnoreError();
    ApplyMember(process);
  } else if (auto* blobs = std::get_if<BlobsArrived>(&output)) {
    outcome.blobs = blobs->blobs;
    if (process == 0) {
      coordinator_->Broadcast("0").IgnoreError();
      ApplyCoordinator();
    }
  } else if (auto* broadcast = std::get_if<BroadcastArrived>(&output)) {
    outcome.broadcasts.push_back(broadcast->bytes);
    At(now_ + random(options_.work_max), process, [=, this, bytes = broadcast->bytes] { Work(process, bytes); });
  } else if (auto* ended = std::get_if<Ended>(&output)) {
    CHECK(!outcome.ended.has_value()) << "ended twice";
    outcome.ended = ended->status;
    outcome.ended_at = now_;
  }
}

void SimulatedJob::Work(int process, const std::string& broadcast) {
  Member& member = *processes_[process].member;
  member.Report(broadcast + std::string(options_.report_bytes, '.')).IgnoreError();
  const int done = static_cast<int>(processes_[process].outcome.broadcasts.size());
  if (done == options_.broadcasts) member.Leave().IgnoreError();
  ApplyMember(process);
}

}  // namespace sluice
