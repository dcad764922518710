#include "runtime/control/http/page_server.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "runtime/control/http/visit_shell.h"
#include "runtime/control/listen_shell.h"

namespace sluice {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// After an error of accept(), most likely too many open files.
constexpr asio::chrono::milliseconds kAcceptPause{100};

}  // namespace

class PageServer::Impl {
 public:
  Impl(World* world, PageServerOptions options) : world_(world), options_(std::move(options)) {}
  ~Impl();
  absl::Status Start();
  int port() const { return port_; }

 private:
  void Accept();
  void Welcome(tcp::socket socket);

  World* const world_;
  const PageServerOptions options_;
  asio::io_context context_{1};
  tcp::acceptor acceptor_{context_};
  asio::steady_timer accept_again_{context_};
  std::map<int, std::shared_ptr<Visit>> visits_;  // that go on, by number
  int visitors_ = 0;                              // ever
  bool accepting_ = false;
  int port_ = 0;
  EventRef thread_;
};

absl::Status PageServer::Impl::Start() {
  ASSIGN_OR_RETURN(const tcp::endpoint listens, OpenAcceptor(acceptor_, options_.bind, options_.port));
  port_ = listens.port();
  Accept();
  thread_ = world_->Spawn({.name = "pages"}, [this] { context_.run(); });
  return absl::OkStatus();
}

PageServer::Impl::~Impl() {
  if (!thread_) return;
  asio::post(context_, [this] {
    error_code ignored;
    acceptor_.close(ignored);
    accept_again_.cancel();
    for (const auto& [number, visit] : visits_) visit->Stop();
  });
  CHECK_OK(world_->Wait(thread_));
}

void PageServer::Impl::Accept() {
  if (accepting_ || !acceptor_.is_open() || static_cast<int>(visits_.size()) >= options_.connections) return;
  accepting_ = true;
  acceptor_.async_accept([this](error_code error, tcp::socket socket) {
    accepting_ = false;
    if (!error) {
      Welcome(std::move(socket));
      return Accept();
    }
    if (!acceptor_.is_open()) return;
    accepting_ = true;
    accept_again_.expires_after(kAcceptPause);
    accept_again_.async_wait([this](error_code) {
      accepting_ = false;
      Accept();
    });
  });
}

void PageServer::Impl::Welcome(tcp::socket socket) {
  CloseOnExec(socket.native_handle());
  const int number = visitors_++;
  const auto visit = std::make_shared<Visit>(std::move(socket), &options_, [this, number] {
    visits_.erase(number);
    Accept();
  });
  visits_.emplace(number, visit);
  visit->Start();
}

PageServer::PageServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PageServer::~PageServer() = default;
int PageServer::port() const { return impl_->port(); }

absl::StatusOr<std::unique_ptr<PageServer>> PageServer::Start(World* world, PageServerOptions options) {
  auto impl = std::make_unique<Impl>(world, std::move(options));
  RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<PageServer>(new PageServer(std::move(impl)));
}

}  // namespace sluice
