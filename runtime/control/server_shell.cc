#include "runtime/control/server_shell.h"

#include <sys/resource.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/control/listen_shell.h"

namespace sluice {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// After an error of accept(), most likely too many open files.
constexpr std::chrono::milliseconds kAcceptPause{100};
// Files that the rest of the program has open.
constexpr rlim_t kOtherFiles = 128;

// One connection is one open file, and the usual limit is 1024.
absl::Status AllowOpenFiles(rlim_t connections) {
  const rlim_t wanted = connections + kOtherFiles;
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return absl::OkStatus();
  if (limit.rlim_max < wanted) {
    return absl::ResourceExhaustedError(absl::StrCat("a coordinator of so many processes needs ", wanted,
                                                     " open files, and this process may have ", limit.rlim_max,
                                                     "; raise the limit (ulimit -n)"));
  }
  limit.rlim_cur = wanted;
  setrlimit(RLIMIT_NOFILE, &limit);
  return absl::OkStatus();
}

std::string AddressText(const tcp::socket& socket) {
  error_code error;
  const tcp::endpoint end = socket.remote_endpoint(error);
  return error ? "an unknown address" : absl::StrCat(end.address().to_string(), ":", end.port());
}

}  // namespace

ControlServer::ControlServer(World* world, asio::io_context* context, Coordinator::Options options,
                             std::function<void(ControlOutput&)> events)
    : world_(world),
      options_(options),
      coordinator_(std::move(options), world->Now()),
      events_(std::move(events)),
      acceptor_(*context),
      timer_(*context),
      accept_again_(*context) {}

absl::StatusOr<tcp::endpoint> ControlServer::Listen(const std::string& bind, uint16_t port) {
  RETURN_IF_ERROR(AllowOpenFiles(options_.roll.processes + options_.limits.strangers));
  ASSIGN_OR_RETURN(const tcp::endpoint listens, OpenAcceptor(acceptor_, bind, port));
  Apply();
  return listens;
}

void ControlServer::Accept() {
  if (accepting_ || shut_down_ || !coordinator_.accepting()) return;
  accepting_ = true;
  acceptor_.async_accept([this](error_code error, tcp::socket socket) {
    accepting_ = false;
    if (shut_down_) return;
    if (!error) {
      Add(std::move(socket));
      return Apply();
    }
    accepting_ = true;
    accept_again_.expires_after(kAcceptPause);
    accept_again_.async_wait([this](error_code) {
      accepting_ = false;
      Apply();
    });
  });
}

void ControlServer::Add(tcp::socket socket) {
  const ConnectionId id(connections_++);
  const std::string address = AddressText(socket);
  TcpLink::Events events;
  events.received = [this, id](absl::string_view bytes) {
    coordinator_.Received(id, bytes, world_->Now());
    Apply();
  };
  events.closed = [this, id](const std::string& why) {
    links_.erase(id);
    coordinator_.Closed(id, why, world_->Now());
    Apply();
  };
  auto link = std::make_shared<TcpLink>(std::move(socket), options_.limits.queue_bytes, std::move(events));
  links_.emplace(id, link);
  coordinator_.Opened(id, address, world_->Now());
  link->Start();
}

absl::Status ControlServer::Broadcast(std::string bytes) {
  const absl::Status status = coordinator_.Broadcast(std::move(bytes));
  Apply();
  return status;
}

void ControlServer::Abort(const absl::Status& cause) {
  coordinator_.Abort(cause, world_->Now());
  Apply();
}

void ControlServer::Shutdown() {
  shutting_down_ = true;
  Apply();
}

void ControlServer::ShutDownIfFinished() {
  if (!shutting_down_ || shut_down_ || !coordinator_.finished()) return;
  shut_down_ = true;
  error_code ignored;
  acceptor_.close(ignored);
  timer_.cancel();
  accept_again_.cancel();
  for (const auto& [id, link] : links_) link->Close();
}

void ControlServer::Apply() {
  for (ControlOutput& output : coordinator_.TakeOutputs()) {
    if (auto* send = std::get_if<SendFrame>(&output)) {
      const auto link = links_.find(send->connection);
      if (link != links_.end()) link->second->Send(std::move(send->bytes), send->only_this);
    } else if (auto* close = std::get_if<CloseConnection>(&output)) {
      const auto link = links_.find(close->connection);
      if (link != links_.end()) link->second->Close();
    } else {
      events_(output);
    }
  }
  Accept();
  SetTimer();
  ShutDownIfFinished();
}

void ControlServer::SetTimer() {
  const Nanoseconds next = coordinator_.next_tick();
  if (shut_down_ || next == timer_for_) return;
  timer_for_ = next;
  timer_.expires_after(std::chrono::nanoseconds(std::max<Nanoseconds>(0, next - world_->Now())));
  timer_.async_wait([this](error_code error) {
    if (error || shut_down_) return;
    timer_for_ = kForever;
    coordinator_.Tick(world_->Now());
    Apply();
  });
}

}  // namespace sluice
