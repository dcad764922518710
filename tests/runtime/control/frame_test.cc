// Frames from bytes that are torn, oversized or garbage; and the small parts that the state machines are made of.
#include "runtime/control/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "runtime/control/blob_exchange.h"
#include "runtime/control/clock_offset.h"
#include "runtime/control/protocol.h"
#include "runtime/control/tick_clock.h"

namespace sluice {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

proto::ControlFrame ReportFrame(std::string bytes) {
  proto::ControlFrame frame;
  frame.set_report(std::move(bytes));
  return frame;
}

std::string Text(const absl::Status& status) { return std::string(status.message()); }

TEST(FrameTest, ItsBytesAreLengthAndMessage) {
  proto::ControlFrame leave;
  leave.mutable_leave();
  EXPECT_EQ(*EncodeFrame(leave), std::string("\x02\0\0\0\x62\0", 6));
  FrameReader reader(2);
  reader.Append(*EncodeFrame(leave));
  EXPECT_TRUE(reader.Next()->value().has_leave());
  EXPECT_FALSE(reader.Next()->has_value());
}

TEST(FrameTest, FramesComeWholeHoweverTheBytesAreTorn) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    std::mt19937_64 random(seed);
    std::vector<std::string> sent, got;
    std::string wire;
    for (int i = 0; i < 20; ++i) {
      sent.push_back(std::string(random() % (i % 5 == 0 ? 20000 : 30), static_cast<char>(random())));
      wire += *EncodeFrame(ReportFrame(sent.back()));
    }
    FrameReader reader(1 << 20);
    for (size_t begin = 0; begin < wire.size();) {
      const size_t size = std::min<size_t>(wire.size() - begin, 1 + random() % (seed % 2 == 0 ? 3 : 50000));
      reader.Append(absl::string_view(wire).substr(begin, size));
      begin += size;
      for (;;) {
        const auto frame = reader.Next();
        ASSERT_TRUE(frame.ok()) << frame.status();
        if (!frame->has_value()) break;
        got.push_back((*frame)->report());
      }
    }
    EXPECT_EQ(got, sent);
  }
}

TEST(FrameTest, TheLimitIsCheckedBeforeTheFrameHasCome) {
  const std::string wire = *EncodeFrame(ReportFrame(std::string(1000, 'x')));
  FrameReader reader(static_cast<int64_t>(wire.size()) - 5);
  reader.Append(wire.substr(0, 4));
  const auto frame = reader.Next();
  EXPECT_EQ(frame.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Text(frame.status()), HasSubstr("a frame of 1003 bytes; at most 1002"));
  FrameReader larger(static_cast<int64_t>(wire.size()) - 4);
  larger.Append(wire);
  EXPECT_TRUE(larger.Next()->has_value());
}

TEST(FrameTest, GarbageIsAnErrorAndNeverAFrame) {
  const auto error = [](absl::string_view bytes) {
    FrameReader reader(1 << 20);
    reader.Append(bytes);
    return reader.Next().status().code();
  };
  EXPECT_EQ(error(absl::string_view("\0\0\0\0", 4)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(error(absl::string_view("\2\0\0\0\xff\xff", 6)), absl::StatusCode::kInvalidArgument);
  // A message of fields that a frame doesn't have.
  EXPECT_EQ(error(absl::string_view("\3\0\0\0\xf8\x07\x01", 7)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(error("GET / HTTP/1.1\r\n"), absl::StatusCode::kResourceExhausted);
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    std::mt19937_64 random(seed);
    std::string noise(random() % 200, '\0');
    for (char& byte : noise) byte = static_cast<char>(random() % (seed % 2 == 0 ? 256 : 20));
    FrameReader reader(100);
    reader.Append(noise);
    for (auto frame = reader.Next(); frame.ok() && frame->has_value();) frame = reader.Next();
  }
}

TEST(FrameTest, WhatCanNotBeReadIsNotSent) {
  EXPECT_TRUE(CheckFrameFits(ReportFrame("1234"), 6).ok());
  EXPECT_EQ(CheckFrameFits(ReportFrame("1234"), 5).code(), absl::StatusCode::kResourceExhausted);
}

TEST(ControlTextTest, NumbersAndNamesAreShort) {
  EXPECT_EQ(NumberRanges({}), "");
  EXPECT_EQ(NumberRanges({3}), "3");
  EXPECT_EQ(NumberRanges({0, 1, 2, 3, 5, 8, 9}), "0-3, 5, 8, 9");
  EXPECT_EQ(ProcessName(2, "b", {WorldRank(5), WorldRank(4)}), "process 2 (host b, ranks 4, 5)");
  EXPECT_EQ(Seconds(1500 * kMillisecond), "1.5 s");
}

TEST(ControlTextTest, AStatusOfTheWireIsNeverOkAndLongOnesAreCut) {
  EXPECT_EQ(StatusFromWire(0, "x").code(), absl::StatusCode::kUnknown);
  EXPECT_EQ(StatusFromWire(-5, "x").code(), absl::StatusCode::kUnknown);
  EXPECT_EQ(StatusFromWire(14, "x"), absl::UnavailableError("x"));
  EXPECT_LT(Shortened(absl::InternalError(std::string(1 << 20, 'x'))).message().size(), 20000u);
}

TEST(BlobExchangeTest, TheLastBlobBringsAllInOrderAndNamesDoNotMix) {
  BlobExchange exchange(3, 1 << 20);
  EXPECT_FALSE(exchange.Add(2, "a", "a2", 0)->has_value());
  EXPECT_FALSE(exchange.Add(0, "b", "b0", 5)->has_value());
  EXPECT_FALSE(exchange.Add(0, "a", "a0", 6)->has_value());
  EXPECT_EQ(exchange.Add(0, "a", "again", 6).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(exchange.BegunBefore(1)->name, "a");
  EXPECT_THAT(exchange.BegunBefore(1)->missing, ElementsAre(1));
  EXPECT_THAT(**exchange.Add(1, "a", "a1", 7), ElementsAre("a0", "a1", "a2"));
  EXPECT_FALSE(exchange.BegunBefore(5).has_value());
  EXPECT_EQ(exchange.BegunBefore(6)->name, "b");
  // The name is free again.
  EXPECT_FALSE(exchange.Add(2, "a", "", 8)->has_value());
}

TEST(BlobExchangeTest, WhatIsHeldIsBounded) {
  BlobExchange exchange(2, 2000);
  EXPECT_TRUE(exchange.Add(0, "a", std::string(1000, 'x'), 0).ok());
  EXPECT_EQ(exchange.Add(0, "b", std::string(1000, 'x'), 0).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(exchange.Add(1, "a", "", 0)->has_value());
  EXPECT_TRUE(exchange.Add(0, "b", std::string(1000, 'x'), 0).ok());
}

TEST(ClockOffsetTest, TheShortestRoundTripOfTheRecentOnesCounts) {
  ClockOffsetEstimate clock;
  EXPECT_EQ(clock.best().uncertainty, kForever);
  clock.Add(100, 5000, 300);  // 200 long
  EXPECT_EQ(clock.best().offset, 4800);
  clock.Add(1000, 5910, 1020);
  EXPECT_EQ(clock.best().offset, 4900);
  EXPECT_EQ(clock.best().uncertainty, 11);
  clock.Add(500, 1, 400);  // answered before it was asked
  clock.Add(INT64_MIN, INT64_MIN, 400);
  EXPECT_EQ(clock.best().offset, 4900);
  for (int i = 0; i < 16; ++i) clock.Add(2000, 7000, 2100);
  EXPECT_EQ(clock.best().offset, 4950);
}

TEST(TickClockTest, ALateTickSaysByHowMuch) {
  TickClock ticks(2 * kSecond, 0);
  EXPECT_EQ(ticks.next(), kSecond / 10);
  EXPECT_EQ(ticks.Tick(kSecond / 20), 0);
  EXPECT_EQ(ticks.Tick(ticks.next() + kMillisecond), 0);
  EXPECT_EQ(ticks.Tick(ticks.next() + kSecond), kSecond);
}

}  // namespace
}  // namespace sluice
