#include "runtime/control/tcp_link_shell.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/control/listen_shell.h"

namespace sluice {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// As long the other end may take none of the last words, or not close; then the connection is cut.
constexpr std::chrono::seconds kLinger{1};
constexpr size_t kReadBytes = 64 << 10;

std::string Reason(const error_code& error) {
  return error == asio::error::eof ? "its connection was closed"
                                   : absl::StrCat("its connection broke: ", error.message());
}

// The kernel waits twice as long after each packet that was lost, up to two minutes: a link that comes back before the
// heartbeat's limit would be noticed only after it. So a second at most; systems before Linux 6.15 don't know the option.
void RetryEverySecond(int socket) {
  constexpr int kRtoMaxMilliseconds = 44;  // TCP_RTO_MAX_MS
  constexpr int kMilliseconds = 1000;      // the least that it takes
  setsockopt(socket, IPPROTO_TCP, kRtoMaxMilliseconds, &kMilliseconds, sizeof(kMilliseconds));
}

}  // namespace

void SetSocketOptions(tcp::socket& socket) {
  error_code ignored;  // a socket that can't be set up is found dead when it is used
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  socket.non_blocking(true, ignored);
  CloseOnExec(socket.native_handle());
  RetryEverySecond(socket.native_handle());
}

TcpLink::TcpLink(tcp::socket socket, int64_t queue_bytes_max, Events events)
    : socket_(std::move(socket)),
      linger_(socket_.get_executor()),
      queue_bytes_max_(queue_bytes_max),
      events_(std::move(events)) {}

void TcpLink::Start() {
  SetSocketOptions(socket_);
  Read();
}

// Waits until there is something, so that a thousand idle connections hold no buffers.
void TcpLink::Read() {
  socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](error_code error) {
    if (self->gone_) return;
    static thread_local std::array<char, kReadBytes> buffer;
    size_t bytes = 0;
    if (!error) bytes = self->socket_.read_some(asio::buffer(buffer), error);
    if (error && error != asio::error::would_block) return self->Fail(Reason(error));
    if (bytes > 0 && !self->closing_) self->events_.received(absl::string_view(buffer.data(), bytes));
    if (!self->gone_) self->Read();
  });
}

void TcpLink::Send(WireBytes frame, bool only_this) {
  if (gone_ || closing_) return;
  if (only_this) {
    while (queue_.size() > (writing_ || sent_ > 0 ? 1 : 0)) {
      queue_bytes_ -= static_cast<int64_t>(queue_.back()->size());
      queue_.pop_back();
    }
  }
  queue_bytes_ += static_cast<int64_t>(frame->size());
  queue_.push_back(std::move(frame));
  if (queue_bytes_ > queue_bytes_max_) {
    asio::post(socket_.get_executor(), [self = shared_from_this()] {
      self->Fail(absl::StrCat("it does not take what is sent to it: ", self->queue_bytes_, " bytes wait"));
    });
    return;
  }
  Write();
}

void TcpLink::Write() {
  if (writing_ || gone_ || queue_.empty()) return;
  writing_ = true;
  const WireBytes frame = queue_.front();
  socket_.async_write_some(asio::buffer(*frame) + sent_,
                           [self = shared_from_this(), frame](error_code error, size_t bytes) {
                             self->writing_ = false;
                             if (self->gone_) return;
                             if (error) return self->Fail(Reason(error));
                             self->Written(bytes);
                           });
}

void TcpLink::Written(size_t bytes) {
  sent_ += bytes;
  if (sent_ == queue_.front()->size()) {
    queue_bytes_ -= static_cast<int64_t>(sent_);
    queue_.pop_front();
    sent_ = 0;
  }
  if (closing_) Linger();
  Write();
}

void TcpLink::Close() {
  if (gone_ || std::exchange(closing_, true)) return;
  Linger();
  Write();
}

// When all is sent, goes on reading until the other end closes too: closing with bytes unread would make the kernel
// throw away what the other end has not read yet.
void TcpLink::Linger() {
  error_code ignored;
  if (queue_.empty()) socket_.shutdown(tcp::socket::shutdown_send, ignored);
  linger_.expires_after(kLinger);
  linger_.async_wait([self = shared_from_this()](error_code error) {
    if (!error) self->Fail("closed");
  });
}

void TcpLink::Fail(const std::string& why) {
  if (std::exchange(gone_, true)) return;
  linger_.cancel();
  error_code ignored;
  socket_.close(ignored);
  events_.closed(why);
}

}  // namespace sluice
