// One TCP connection as both ends of the control plane use it: sends whole frames in order, gives out bytes as they
// come, and is gone exactly once. Everything runs on the thread that runs the io_context; nothing is called back from
// within a call.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "runtime/control/frame.h"

namespace sluice {

class TcpLink : public std::enable_shared_from_this<TcpLink> {
 public:
  struct Events {
    std::function<void(absl::string_view)> received;  // not after Close()
    std::function<void(const std::string& why)> closed;
  };
  // queue_bytes_max: of frames that wait to be sent; an end that takes nothing is given up.
  TcpLink(boost::asio::ip::tcp::socket socket, int64_t queue_bytes_max, Events events);

  // Begins to read. REQUIRES: the socket is connected.
  void Start();
  // only_this: frames queued before it, of which no byte is sent, are dropped.
  void Send(WireBytes frame, bool only_this);
  // Sends what is queued, waits a little for the other end to have read it, and is gone; at once when nothing moves.
  void Close();

 private:
  void Read();
  void Write();
  void Fail(const std::string& why);
  void Written(size_t bytes);
  void Linger();

  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer linger_;
  const int64_t queue_bytes_max_;
  Events events_;
  std::deque<WireBytes> queue_;
  size_t sent_ = 0;  // bytes of queue_.front()
  int64_t queue_bytes_ = 0;
  bool writing_ = false;
  bool closing_ = false;
  bool gone_ = false;
};

// What every socket of the control plane is set to.
void SetSocketOptions(boost::asio::ip::tcp::socket& socket);

}  // namespace sluice
