// A small web server for a few pages that a program makes of itself: its status, its metrics. GET and HEAD, HTTP/1.1,
// no files, no query, nothing that changes anything. On loopback unless told otherwise; it asks nobody who they are.
//
// Threads: one of its own, which calls the pages' functions; these must be quick and must not wait for whoever destroys
// the server. What a visitor may hold is bounded: size of a request, time for each step, number of connections.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/world.h"

namespace sluice {

struct Page {
  std::string path;                           // "/metrics"
  std::string content_type;                   // "text/plain; version=0.0.4"
  std::function<std::string()> make_content;  // for each request
};

struct PageServerOptions {
  std::string bind = "127.0.0.1";  // an address of this machine
  uint16_t port = 0;               // 0: any free one
  std::vector<Page> pages;
  Nanoseconds limit = 10 * kSecond;  // for a request to arrive, for an answer to be taken, and between two requests
  int request_bytes = 8 << 10;
  int connections = 64;  // more wait in the kernel
};

class PageServer {
 public:
  // UNAVAILABLE: the port is taken. The world outlives it.
  static absl::StatusOr<std::unique_ptr<PageServer>> Start(World* world, PageServerOptions options);
  // Breaks all connections.
  ~PageServer();
  int port() const;

 private:
  class Impl;
  explicit PageServer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace sluice
