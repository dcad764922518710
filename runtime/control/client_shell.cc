#include "runtime/control/client_shell.h"

#include <boost/asio/connect.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <utility>

namespace sluice {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// Where nobody listens on a port of the range that the kernel gives out, it may connect a socket to itself.
bool IsItsOwnEnd(const tcp::socket& socket) {
  error_code error;
  return socket.local_endpoint(error) == socket.remote_endpoint(error);
}

}  // namespace

// Resolves the name, then tries its addresses in turn.
class ControlClient::Attempt : public std::enable_shared_from_this<Attempt> {
 public:
  Attempt(ControlClient* client) : client_(client), resolver_(*client->context_), socket_(*client->context_) {}

  void Start() {
    const Target& target = client_->target_;
    resolver_.async_resolve(target.host, std::to_string(target.port), tcp::resolver::numeric_service,
                            [self = shared_from_this()](error_code error, tcp::resolver::results_type found) {
                              if (error || self->cancelled_) return self->Done(error);
                              self->Connect(std::move(found));
                            });
  }

  // Nothing is called after this.
  void Cancel() {
    cancelled_ = true;
    resolver_.cancel();
    error_code ignored;
    socket_.close(ignored);
  }

 private:
  void Connect(tcp::resolver::results_type found) {
    asio::async_connect(socket_, found,
                        [self = shared_from_this()](error_code error, const tcp::endpoint&) { self->Done(error); });
  }

  void Done(error_code error) {
    if (cancelled_) return;
    const auto keep = std::exchange(client_->attempt_, nullptr);
    if (!error && IsItsOwnEnd(socket_)) error = asio::error::connection_refused;
    if (error) return client_->Closed(error.message());
    client_->Opened(std::move(socket_));
  }

  ControlClient* const client_;
  tcp::resolver resolver_;
  tcp::socket socket_;
  bool cancelled_ = false;
};

ControlClient::ControlClient(World* world, asio::io_context* context, Target target, Member::Options options,
                             std::function<void(ControlOutput&)> events)
    : world_(world),
      context_(context),
      target_(std::move(target)),
      queue_bytes_max_(options.limits.queue_bytes),
      member_(std::move(options), world->Now()),
      events_(std::move(events)),
      timer_(*context) {}

absl::Status ControlClient::SendBlob(const std::string& name, std::string blob) {
  const absl::Status status = member_.SendBlob(name, std::move(blob));
  Apply();
  return status;
}

absl::Status ControlClient::Report(std::string bytes) {
  const absl::Status status = member_.Report(std::move(bytes));
  Apply();
  return status;
}

absl::Status ControlClient::Leave() {
  const absl::Status status = member_.Leave();
  Apply();
  return status;
}

void ControlClient::Abort(const absl::Status& cause) {
  member_.Abort(cause, world_->Now());
  Apply();
}

void ControlClient::Connect() {
  attempt_ = std::make_shared<Attempt>(this);
  attempt_->Start();
}

void ControlClient::Opened(tcp::socket socket) {
  TcpLink::Events events;
  events.received = [this](absl::string_view bytes) {
    member_.Received(bytes, world_->Now());
    Apply();
  };
  events.closed = [this](const std::string& why) {
    link_ = nullptr;
    Closed(why);
  };
  link_ = std::make_shared<TcpLink>(std::move(socket), queue_bytes_max_, std::move(events));
  link_->Start();
  member_.Opened(world_->Now());
  Apply();
}

void ControlClient::Closed(const std::string& why) {
  member_.Closed(why, world_->Now());
  Apply();
}

void ControlClient::Apply() {
  for (ControlOutput& output : member_.TakeOutputs()) Do(output);
  SetTimer();
}

void ControlClient::Do(ControlOutput& output) {
  if (auto* send = std::get_if<SendFrame>(&output)) {
    if (link_ != nullptr) link_->Send(std::move(send->bytes), send->only_this);
  } else if (std::holds_alternative<CloseConnection>(output)) {
    if (link_ != nullptr) link_->Close();
    if (attempt_ != nullptr) std::exchange(attempt_, nullptr)->Cancel();
  } else if (std::holds_alternative<struct Connect>(output)) {
    Connect();
  } else {
    events_(output);
  }
}

void ControlClient::SetTimer() {
  const Nanoseconds next = member_.next_tick();
  if (next == timer_for_) return;
  timer_for_ = next;
  timer_.cancel();
  if (next == kForever) return;
  timer_.expires_after(std::chrono::nanoseconds(std::max<Nanoseconds>(0, next - world_->Now())));
  timer_.async_wait([this](error_code error) {
    if (error) return;
    timer_for_ = kForever;
    member_.Tick(world_->Now());
    Apply();
  });
}

}  // namespace sluice
