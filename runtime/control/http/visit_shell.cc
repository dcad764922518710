#include "runtime/control/http/visit_shell.h"

#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

namespace http = boost::beast::http;
using boost::asio::ip::tcp;
using boost::system::error_code;

// A page loads nothing from elsewhere, runs nothing, and is fresh each time.
constexpr char kContentPolicy[] = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:";

// For the visitor to read the last answer and close.
constexpr std::chrono::seconds kFarewell{1};

// What a request that can't be read is answered with; nothing: the visitor is gone or too slow.
std::optional<http::status> AnswerTo(const error_code& error) {
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return http::status::request_header_fields_too_large;
  }
  if (error == http::error::unexpected_body || error == http::error::body_limit) return http::status::payload_too_large;
  if (error == http::error::end_of_stream || error == http::error::partial_message) return std::nullopt;
  if (error.category() == http::make_error_code(http::error::bad_method).category()) return http::status::bad_request;
  return std::nullopt;
}

std::string PathsOf(const std::vector<Page>& pages) {
  std::string text = "there are:\n";
  for (const Page& page : pages) absl::StrAppend(&text, page.path, "\n");
  return text;
}

}  // namespace

Visit::Visit(tcp::socket socket, const PageServerOptions* options, std::function<void()> ended)
    : stream_(std::move(socket)),
      options_(options),
      ended_(std::move(ended)),
      buffer_(static_cast<size_t>(options->request_bytes) + 1024) {}

void Visit::SetTimeLimit() { stream_.expires_after(std::chrono::nanoseconds(options_->limit)); }

void Visit::Read() {
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(options_->request_bytes));
  SetTimeLimit();
  http::async_read(stream_, buffer_, *parser_,
                   [self = shared_from_this()](error_code error, size_t) { self->Answer(error); });
}

void Visit::Answer(const error_code& error) {
  if (error && !AnswerTo(error).has_value()) return error == http::error::end_of_stream ? SayGoodbye() : End();
  Write(Make(error));
}

Visit::Response Visit::Make(const error_code& error) const {
  const auto& request = parser_->get();
  Response response(http::status::ok, 11);
  response.set(http::field::cache_control, "no-store");
  response.set(http::field::content_type, "text/plain; charset=utf-8");
  response.set("X-Content-Type-Options", "nosniff");
  response.set("Content-Security-Policy", kContentPolicy);
  response.keep_alive(!error && request.keep_alive());
  const auto refuse = [&](http::status status, const std::string& text) {
    response.result(status);
    response.body() = text;
    return response;
  };
  if (error) return refuse(*AnswerTo(error), absl::StrCat(error.message(), "\n"));
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    response.set(http::field::allow, "GET, HEAD");
    return refuse(http::status::method_not_allowed, "pages can be read, and that is all\n");
  }
  const std::string target(request.target());
  const std::string path = target.substr(0, target.find('?'));
  for (const Page& page : options_->pages) {
    if (page.path != path) continue;
    try {
      response.body() = page.make_content();
    } catch (const std::exception& exception) {
      return refuse(http::status::internal_server_error, absl::StrCat(exception.what(), "\n"));
    }
    response.set(http::field::content_type, page.content_type);
    return response;
  }
  return refuse(http::status::not_found, PathsOf(options_->pages));
}

void Visit::Write(Response response) {
  response_ = std::move(response);
  response_->prepare_payload();
  // HEAD: the length of what GET would bring, and nothing of it.
  if (parser_->get().method() == http::verb::head) response_->body().clear();
  SetTimeLimit();
  http::async_write(stream_, *response_, [self = shared_from_this()](error_code error, size_t) {
    if (error) return self->End();
    self->response_->keep_alive() ? self->Read() : self->SayGoodbye();
  });
}

void Visit::SayGoodbye() {
  error_code ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
  stream_.expires_after(kFarewell);
  Drain();
}

// Closing with bytes unread would make the kernel throw away what the visitor has not read yet.
void Visit::Drain() {
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(buffer_.max_size()), [self = shared_from_this()](error_code error, size_t) {
    error ? self->End() : self->Drain();
  });
}

void Visit::End() {
  stream_.close();
  if (ended_) std::exchange(ended_, nullptr)();
}

}  // namespace sluice
