#include "tools/launch/remote_job.h"

#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/status.h"
#include "tools/launch/address.h"

namespace sluice::tools {
namespace {

// As one word for the shell of the other host.
std::string Quoted(const std::string& word) {
  return absl::StrCat("'", absl::StrReplaceAll(word, {{"'", "'\\''"}}), "'");
}

SupervisedChild ConnectionTo(const RemoteJob& job, size_t host) {
  const std::string& name = job.hosts[host].host;
  std::vector<std::string> command = job.ssh;
  command.push_back(name);
  command.push_back(absl::StrCat("exec ", absl::StrJoin(job.serve, " ", [](std::string* text, const std::string& word) {
                                   text->append(Quoted(word));
                                 })));
  return {.start = {.command = std::move(command), .has_input = true, .shares_output = host == 0},
          .name = absl::StrCat("host ", name),
          .prefix = absl::StrCat(name, ": "),
          .signal_text = SignalLine};
}

// One order for each host; address and port are known when process 0 listens.
std::vector<HostOrder> Orders(const RemoteJob& job) {
  std::vector<HostOrder> orders;
  int processes = 0;
  for (const HostLine& host : job.hosts) {
    HostOrder& order = orders.emplace_back(job.order);
    order.job.first = std::exchange(processes, processes + host.processes);
    order.job.count = host.processes;
  }
  for (HostOrder& order : orders) order.job.processes = processes;
  if (job.hosts.size() > 1) orders[0].peer = job.hosts[1].host;
  return orders;
}

// Lines are short, and nothing after the first may be lost: so a byte at a time.
std::string ReadLine(int file) {
  std::string line;
  for (char next = 0; next != '\n';) {
    const ssize_t bytes = read(file, &next, 1);
    if (bytes == 0 || (bytes < 0 && errno != EINTR)) return "";
    if (bytes == 1) line += next;
  }
  return line;
}

absl::Status StandIn(const HostOrder& order) {
  std::error_code error;
  std::filesystem::current_path(order.directory, error);
  if (error) {
    return absl::NotFoundError(absl::StrCat("folder ", order.directory, ": ", error.message(),
                                            "; program, job and data must be at the same paths on all hosts"));
  }
  if (std::filesystem::is_regular_file(order.job_file, error)) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat("there is no job file ", order.job_file, " here; it must be at the same path on all hosts"));
}

}  // namespace

absl::StatusOr<SupervisionResult> RunOnHosts(const World* world, const RemoteJob& job, SupervisorOptions options) {
  std::vector<HostOrder> orders = Orders(job);
  Supervisor* supervisor = nullptr;
  const auto order = [&](size_t host) {
    if (const absl::Status told = supervisor->Tell(host, ToLine(orders[host])); !told.ok()) {
      supervisor->Fail(1, std::string(told.message()));
    }
  };
  options.on_error_line = [&](size_t host, absl::string_view line) {
    Listening listening;
    if (host != 0 || !ParseListening(line, &listening)) return false;
    supervisor->Say(absl::StrCat("process 0 on ", job.hosts[0].host, " is reached at ", listening.address, " port ",
                                 listening.port));
    for (size_t other = 1; other < orders.size(); ++other) {
      orders[other].job.address = listening.address;
      orders[other].job.port = listening.port;
      order(other);
    }
    return true;
  };
  ASSIGN_OR_RETURN(const auto owner, Supervisor::Create(world, std::move(options)));
  supervisor = owner.get();
  for (size_t host = 0; host < orders.size(); ++host) {
    if (supervisor->Start(ConnectionTo(job, host))) continue;
    supervisor->KillAll();
    return supervisor->Run();
  }
  order(0);
  return supervisor->Run();
}

absl::StatusOr<SupervisionResult> ServeHost(const World* world, SupervisorOptions options,
                                            const std::string& ssh_connection) {
  const std::string line = ReadLine(STDIN_FILENO);
  if (line.empty()) return absl::AbortedError("the launcher has gone before it gave a job");
  ASSIGN_OR_RETURN(HostOrder order, ParseOrder(line));
  RETURN_IF_ERROR(StandIn(order));
  if (order.job.first == 0 && !order.peer.empty()) {
    ASSIGN_OR_RETURN(order.job.address, AddressForOthers(order.interface, order.peer, ssh_connection));
    order.job.command.insert(order.job.command.end(), {"--bind", order.job.address});
  }
  options.orders = STDIN_FILENO;
  return RunOnHost(world, order.job,
                   {.supervisor = std::move(options),
                    .on_listening =
                        [&](Supervisor* supervisor, int port) {
                          supervisor->Say(ToLine(Listening{.address = order.job.address, .port = port}));
                        },
                    .on_order =
                        [](Supervisor* supervisor, absl::string_view line) {
                          if (const int signal = ParseSignal(line); signal != 0) supervisor->Forward(signal);
                        }});
}

}  // namespace sluice::tools
