#include "runtime/control/listen_shell.h"

#include <fcntl.h>

#include <boost/asio/error.hpp>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

absl::Status ListenError(const error_code& error, const std::string& bind, uint16_t port) {
  if (error == asio::error::address_in_use) {
    return absl::UnavailableError(absl::StrCat("port ", port, " on ", bind,
                                               " is taken; end what listens there (perhaps an earlier run), or choose "
                                               "another port (0: any free one)"));
  }
  return absl::UnavailableError(absl::StrCat("can't listen on ", bind, ", port ", port, ": ", error.message(),
                                             "; the address must be one of this machine"));
}

}  // namespace

void CloseOnExec(int descriptor) { fcntl(descriptor, F_SETFD, FD_CLOEXEC); }

absl::StatusOr<tcp::endpoint> OpenAcceptor(tcp::acceptor& acceptor, const std::string& bind, uint16_t port) {
  error_code error;
  tcp::resolver resolver(acceptor.get_executor());
  const auto found = resolver.resolve(bind, std::to_string(port), tcp::resolver::passive, error);
  if (error || found.empty()) return ListenError(error, bind, port);
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) return ListenError(error, bind, port);
  CloseOnExec(acceptor.native_handle());
  return acceptor.local_endpoint();
}

}  // namespace sluice
