// The page server over real loopback, with visitors on raw sockets: well-behaved, slow, wrong and many.
#include "runtime/control/http/page_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/runtime/control/raw_connection.h"

namespace sluice {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class PageServerTest : public testing::Test {
 protected:
  void Start(PageServerOptions options = {}) {
    options.pages = {{"/", "text/html; charset=utf-8", [this] { return absl::StrCat("<p>visit ", ++visits_, "</p>"); }},
                     {"/metrics", "text/plain; version=0.0.4", [] { return std::string("loss 1.5\n"); }},
                     {"/timeline.svg", "image/svg+xml", [] { return std::string(4 << 20, 's'); }},
                     {"/broken", "text/plain", []() -> std::string { throw std::runtime_error("no step yet"); }}};
    auto server = PageServer::Start(world_.get(), options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  // The whole answer to one request, after which the connection is closed.
  std::string Ask(const std::string& request) {
    RawConnection visitor(server_->port());
    visitor.Say(request);
    return visitor.HearToTheEnd();
  }
  std::string Get(const std::string& path) {
    return Ask("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  }

  const std::unique_ptr<World> world_ = NewRealWorld();
  std::atomic<int> visits_ = 0;
  std::unique_ptr<PageServer> server_;
};

TEST_F(PageServerTest, PagesAreMadeForEachRequest) {
  Start();
  EXPECT_THAT(
      Get("/"),
      AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("Content-Type: text/html; charset=utf-8\r\n"),
            HasSubstr("Cache-Control: no-store"), HasSubstr("default-src 'none'"), EndsWith("\r\n\r\n<p>visit 1</p>")));
  EXPECT_THAT(Get("/?refresh=1"), EndsWith("<p>visit 2</p>"));
  EXPECT_THAT(Get("/metrics"), AllOf(HasSubstr("text/plain; version=0.0.4"), EndsWith("\r\n\r\nloss 1.5\n")));
  const std::string picture = Get("/timeline.svg");
  EXPECT_EQ(picture.size() - picture.find("\r\n\r\n") - 4, size_t{4} << 20);
}

TEST_F(PageServerTest, AConnectionServesSeveralRequestsAlsoWhenTheyComeAtOnce) {
  Start();
  RawConnection visitor(server_->port());
  const std::string request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  visitor.Say(request);
  EXPECT_THAT(visitor.HearTo("</p>"), EndsWith("<p>visit 1</p>"));
  visitor.Say(request + request);
  visitor.Say("GET / HTTP/1.0\r\n\r\n");
  EXPECT_THAT(visitor.HearToTheEnd(), AllOf(HasSubstr("visit 2"), HasSubstr("visit 3"), EndsWith("<p>visit 4</p>")));
}

TEST_F(PageServerTest, HeadBringsTheLengthAndNoContent) {
  Start();
  EXPECT_THAT(Ask("HEAD /metrics HTTP/1.1\r\nConnection: close\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("Content-Length: 9\r\n"), EndsWith("\r\n\r\n")));
}

TEST_F(PageServerTest, WhatIsNotThereOrNotAllowedIsSaid) {
  Start();
  EXPECT_THAT(Get("/etc/passwd"), AllOf(StartsWith("HTTP/1.1 404"), HasSubstr("/metrics\n")));
  EXPECT_THAT(Get("/../metrics"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Get("/broken"), AllOf(StartsWith("HTTP/1.1 500"), EndsWith("no step yet\n")));
  EXPECT_THAT(Ask("DELETE / HTTP/1.1\r\nConnection: close\r\n\r\n"),
              AllOf(StartsWith("HTTP/1.1 405"), HasSubstr("Allow: GET, HEAD")));
  EXPECT_THAT(Ask("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"), StartsWith("HTTP/1.1 413"));
}

TEST_F(PageServerTest, GarbageIsRefusedAndTheServerGoesOn) {
  Start();
  EXPECT_THAT(Ask("\x01\x02\x03\xff\xff\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(Ask("GET / HTTP/9.9\r\n\r\n"), StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(Ask("GET / HTTP/1.1\r\nX: " + std::string(100000, 'x')), StartsWith("HTTP/1.1 431"));
  EXPECT_THAT(Ask("GET /" + std::string(100000, 'x') + " HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 4"));
  for (int i = 0; i < 20; ++i) RawConnection(server_->port()).Say("GET / HT");  // goes in the middle
  EXPECT_THAT(Get("/metrics"), EndsWith("loss 1.5\n"));
}

TEST_F(PageServerTest, WhoIsTooSlowIsPutOut) {
  Start({.limit = 200 * kMillisecond});
  RawConnection silent(server_->port()), slow(server_->port()), idle(server_->port());
  slow.Say("GET / HTTP/1.1\r\nHost:");
  idle.Say("GET /metrics HTTP/1.1\r\n\r\n");
  EXPECT_EQ(silent.HearToTheEnd(), "");
  EXPECT_EQ(slow.HearToTheEnd(), "");
  EXPECT_THAT(idle.HearToTheEnd(), EndsWith("loss 1.5\n"));
  // One that takes nothing of a large answer.
  RawConnection deaf(server_->port());
  deaf.Say("GET /timeline.svg HTTP/1.1\r\n\r\n");
  world_->SleepUntil(world_->Now() + kSecond);
  EXPECT_LT(deaf.HearToTheEnd().size(), size_t{4} << 20);
}

TEST_F(PageServerTest, ManyVisitorsAreServedInTurn) {
  Start({.limit = kSecond, .connections = 4});
  std::vector<std::unique_ptr<RawConnection>> visitors;
  for (int i = 0; i < 100; ++i) {
    visitors.push_back(std::make_unique<RawConnection>(server_->port()));
    visitors.back()->Say("GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n");
  }
  for (auto& visitor : visitors) {
    EXPECT_THAT(visitor->HearToTheEnd(), EndsWith("loss 1.5\n"));
    visitor = nullptr;
  }
}

TEST_F(PageServerTest, ItEndsWithVisitorsAndFreesThePort) {
  Start();
  const int port = server_->port();
  RawConnection silent(port), idle(port);
  idle.Say("GET / HTTP/1.1\r\n\r\n");
  EXPECT_THAT(idle.HearTo("</p>"), HasSubstr("visit 1"));
  const auto taken = PageServer::Start(world_.get(), {.port = static_cast<uint16_t>(port)});
  EXPECT_THAT(std::string(taken.status().message()), HasSubstr(absl::StrCat("port ", port, " on 127.0.0.1 is taken")));
  server_ = nullptr;
  EXPECT_EQ(silent.HearToTheEnd(), "");
  Start({.port = static_cast<uint16_t>(port)});
  EXPECT_THAT(Get("/"), EndsWith("<p>visit 2</p>"));
}

}  // namespace
}  // namespace sluice
