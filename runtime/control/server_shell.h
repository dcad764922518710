// The Coordinator on real sockets: listens, and does what the state machine says. Everything but Listen() runs on the
// thread that runs the io_context.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "base/world.h"
#include "runtime/control/coordinator.h"
#include "runtime/control/tcp_link_shell.h"

namespace sluice {

class ControlServer {
 public:
  // World and io_context outlive it; destroyed when the io_context no longer runs. `events` gets Started,
  // ReportArrived, Ended and Note.
  ControlServer(World* world, boost::asio::io_context* context, Coordinator::Options options,
                std::function<void(ControlOutput&)> events);

  // Opens the port (0: any free one) on an address of this machine, and returns where it listens. To be called once,
  // before the io_context runs.
  absl::StatusOr<boost::asio::ip::tcp::endpoint> Listen(const std::string& bind, uint16_t port);

  absl::Status Broadcast(std::string bytes);
  void Abort(const absl::Status& cause);
  // Lets the io_context come to its end as soon as every process has been told how the job ended. REQUIRES: it has
  // ended.
  void Shutdown();

 private:
  void Accept();
  void Add(boost::asio::ip::tcp::socket socket);
  // Does what the state machine asks for, and sets the clock for it. Ends every handler.
  void Apply();
  void SetTimer();
  void ShutDownIfFinished();

  World* const world_;
  const Coordinator::Options options_;
  Coordinator coordinator_;
  const std::function<void(ControlOutput&)> events_;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::steady_timer timer_;
  boost::asio::steady_timer accept_again_;
  std::unordered_map<ConnectionId, std::shared_ptr<TcpLink>> links_;
  int connections_ = 0;  // ever
  bool accepting_ = false;
  bool shutting_down_ = false;
  bool shut_down_ = false;
  Nanoseconds timer_for_ = kForever;
};

}  // namespace sluice
