// A Member on a real socket: resolves, connects, and does what the state machine says. Everything runs on the thread
// that runs the io_context.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>

#include "base/world.h"
#include "runtime/control/member.h"
#include "runtime/control/tcp_link_shell.h"

namespace sluice {

class ControlClient {
 public:
  // Where process 0 is: a name or an address.
  struct Target {
    std::string host;
    uint16_t port = 0;
  };
  // World and io_context outlive it; destroyed when the io_context no longer runs. `events` gets Started,
  // BlobsArrived, BroadcastArrived and Ended.
  ControlClient(World* world, boost::asio::io_context* context, Target target, Member::Options options,
                std::function<void(ControlOutput&)> events);

  void Start() { Apply(); }
  absl::Status SendBlob(const std::string& name, std::string blob);
  absl::Status Report(std::string bytes);
  absl::Status Leave();
  void Abort(const absl::Status& cause);
  ClockOffset clock_offset() const { return member_.clock_offset(); }
  uint64_t job_moves() const { return member_.job_moves(); }

 private:
  class Attempt;  // to connect
  void Connect();
  void Opened(boost::asio::ip::tcp::socket socket);
  void Closed(const std::string& why);
  void Apply();
  void Do(ControlOutput& output);
  void SetTimer();

  World* const world_;
  boost::asio::io_context* const context_;
  const Target target_;
  const int64_t queue_bytes_max_;
  Member member_;
  const std::function<void(ControlOutput&)> events_;
  boost::asio::steady_timer timer_;
  std::shared_ptr<Attempt> attempt_;
  std::shared_ptr<TcpLink> link_;
  Nanoseconds timer_for_ = kForever;
};

}  // namespace sluice
