// A plain TCP connection over loopback that speaks as a test wants.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "base/check.h"

namespace sluice {

class RawConnection {
 public:
  explicit RawConnection(int port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_EQ(::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    const timeval patience{.tv_sec = 20};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  }
  ~RawConnection() { ::close(socket_); }
  RawConnection(const RawConnection&) = delete;
  RawConnection& operator=(const RawConnection&) = delete;

  void Say(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;  // the other end has closed, which a test may want
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }
  // What the other end said until it closed the connection. `between` is called after each piece of it.
  std::string HearToTheEnd(const std::function<void()>& between = [] {}) {
    std::string heard;
    while (HearSome(&heard)) between();
    return heard;
  }
  // What it said up to the first `end`, and perhaps more.
  std::string HearTo(const std::string& end) {
    std::string heard;
    while (heard.find(end) == std::string::npos && HearSome(&heard)) {
    }
    return heard;
  }

 private:
  bool HearSome(std::string* heard) {
    char buffer[16 << 10];
    const ssize_t bytes = ::recv(socket_, buffer, sizeof(buffer), 0);
    if (bytes > 0) heard->append(buffer, static_cast<size_t>(bytes));
    return bytes > 0;
  }

  const int socket_;
};

}  // namespace sluice
