// Opens a port to listen on, with errors that say what to do.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace sluice {

// On an address of this machine, or a name of it; port 0: any free one. Returns where it listens. Blocks while a name
// is resolved. UNAVAILABLE: the port is taken, or the address isn't this machine's.
absl::StatusOr<boost::asio::ip::tcp::endpoint> OpenAcceptor(boost::asio::ip::tcp::acceptor& acceptor,
                                                            const std::string& bind, uint16_t port);

// A child process must not inherit it and keep the port.
void CloseOnExec(int descriptor);

}  // namespace sluice
