// One connection to the page server: requests and answers in turn, each step within the limit. Everything runs on the
// thread that runs the io_context.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <functional>
#include <memory>
#include <optional>

#include "runtime/control/http/page_server.h"

namespace sluice {

class Visit : public std::enable_shared_from_this<Visit> {
 public:
  // The options outlive it. `ended` is called once.
  Visit(boost::asio::ip::tcp::socket socket, const PageServerOptions* options, std::function<void()> ended);
  void Start() { Read(); }
  // Breaks it off.
  void Stop() { stream_.close(); }

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::empty_body>;
  using Response = boost::beast::http::response<boost::beast::http::string_body>;

  void Read();
  void Answer(const boost::system::error_code& error);
  Response Make(const boost::system::error_code& error) const;
  void Write(Response response);
  void SayGoodbye();
  void Drain();
  void End();
  void SetTimeLimit();

  boost::beast::tcp_stream stream_;
  const PageServerOptions* const options_;
  std::function<void()> ended_;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  std::optional<Response> response_;
};

}  // namespace sluice
