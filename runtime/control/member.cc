#include "runtime/control/member.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace sluice {
namespace {

// So many round trips at once at the beginning give a first clock offset.
constexpr int kFirstRoundTrips = 5;

}  // namespace

Member::Member(Options options, Nanoseconds now)
    : options_(std::move(options)),
      reader_(options_.limits.hello_bytes),
      heartbeat_limit_(options_.limits.heartbeat),
      join_deadline_(now + options_.limits.join),
      ticks_(heartbeat_limit_, now) {
  outputs_.emplace_back(Connect{});
}

void Member::Opened(Nanoseconds now) {
  if (state_ != State::kConnecting) return;
  state_ = State::kPresenting;
  connected_ = true;
  heard_ = now;
  reader_ = FrameReader(options_.limits.hello_bytes);
  Send(HelloFrame(options_.self, options_.token));
}

void Member::Closed(const std::string& why, Nanoseconds now) {
  connected_ = false;
  if (state_ == State::kEnded) return;
  if (state_ == State::kAborting) return End(cause_);
  // Perhaps process 0 isn't there yet, or what is there belongs to a job that ends.
  if (!is_welcome()) {
    state_ = State::kWaiting;
    retry_ = now + options_.limits.retry;
    last_error_ = why;
    return;
  }
  Despair(absl::UnavailableError(
      absl::StrCat("process 0, the coordinator at ", options_.coordinator, ", has died: ", why)));
}

void Member::Received(absl::string_view bytes, Nanoseconds now) {
  if (!connected_ || state_ == State::kEnded) return;
  heard_ = now;
  reader_.Append(bytes);
  while (state_ != State::kEnded) {
    absl::StatusOr<std::optional<proto::ControlFrame>> frame = reader_.Next();
    if (!frame.ok()) {
      return Despair(Annotate(frame.status(), absl::StrCat("what answers at ", options_.coordinator,
                                                           is_welcome() ? "" : " (is that a control port?)", " sent")));
    }
    if (!frame->has_value()) return;
    TakeFrame(**frame, now);
  }
}

void Member::TakeFrame(proto::ControlFrame& frame, Nanoseconds now) {
  if (frame.has_abort()) return End(StatusFromWire(frame.abort().code(), frame.abort().message()));
  if (frame.has_refused() && !is_welcome()) {
    return End(StatusFromWire(frame.refused().code(), frame.refused().message()));
  }
  // What was said before process 0 heard of the abort.
  if (state_ == State::kAborting) return;
  if (frame.has_welcome() && state_ == State::kPresenting) return TakeWelcome(frame.welcome(), now);
  if (frame.has_start() && state_ == State::kJoining) {
    state_ = State::kRunning;
    outputs_.emplace_back(Started{});
    return;
  }
  if (frame.has_goodbye() && state_ == State::kLeaving) return End(absl::OkStatus());
  if (is_welcome() && TakeNews(frame, now)) return;
  Despair(absl::InvalidArgumentError(absl::StrCat("a frame of kind ", static_cast<int>(frame.body_case()),
                                                  " out of place from what answers at ", options_.coordinator)));
}

void Member::TakeWelcome(const proto::ControlFrame::Welcome& welcome, Nanoseconds now) {
  const Nanoseconds limit = welcome.heartbeat_limit_ns();
  if (const absl::Status valid = CheckLimits({.heartbeat = limit}); !valid.ok()) {
    return Despair(Annotate(valid, "from process 0"));
  }
  state_ = State::kJoining;
  reader_.set_limit(options_.limits.frame_bytes);
  heartbeat_limit_ = limit;
  ticks_ = TickClock(limit, now);
  SendHeartbeat(now);
}

bool Member::TakeNews(proto::ControlFrame& frame, Nanoseconds now) {
  using Frame = proto::ControlFrame;
  switch (frame.body_case()) {
    case Frame::kHeartbeat:
      return true;  // its bytes have told all
    case Frame::kHeartbeatReply:
      job_moves_ = frame.heartbeat_reply().moves();
      clock_.Add(frame.heartbeat_reply().sent_ns(), frame.heartbeat_reply().answered_ns(), now);
      if (++replies_ < kFirstRoundTrips) SendHeartbeat(now);
      return true;
    case Frame::kBlobs: {
      auto* blobs = frame.mutable_blobs()->mutable_blobs();
      BlobsArrived arrived{.name = frame.blobs().name()};
      for (std::string& blob : *blobs) arrived.blobs.push_back(std::move(blob));
      outputs_.emplace_back(std::move(arrived));
      return true;
    }
    case Frame::kBroadcast:
      outputs_.emplace_back(BroadcastArrived{std::move(*frame.mutable_broadcast())});
      return true;
    default:
      return false;
  }
}

void Member::Tick(Nanoseconds now) {
  heard_ = std::min(heard_ + ticks_.Tick(now), now);
  if (state_ == State::kEnded) return;
  if (state_ == State::kAborting && now >= abort_deadline_) return End(cause_);
  if (!is_welcome()) {
    if (now >= join_deadline_) {
      return End(absl::DeadlineExceededError(
          absl::StrCat("process ", options_.self.process, " could not join at ", options_.coordinator, " within ",
                       Seconds(options_.limits.join), last_error_.empty() ? "" : ": ", last_error_,
                       "; does process 0 run, and is this its address?")));
    }
    if (state_ == State::kWaiting && now >= retry_) {
      state_ = State::kConnecting;
      outputs_.emplace_back(Connect{});
    }
    return;
  }
  if (now - heard_ > heartbeat_limit_) {
    return Despair(
        absl::UnavailableError(absl::StrCat("process 0, the coordinator at ", options_.coordinator,
                                            ", is dead or cut off: not heard of for ", Seconds(heartbeat_limit_))));
  }
  if (now >= heartbeat_due_) SendHeartbeat(now);
}

void Member::SendHeartbeat(Nanoseconds now) {
  heartbeat_due_ = now + heartbeat_limit_ / kHeartbeatsPerLimit;
  proto::ControlFrame frame;
  frame.mutable_heartbeat()->set_sent_ns(now);
  if (options_.moves) frame.mutable_heartbeat()->set_moves(options_.moves());
  Send(frame);
}

absl::Status Member::SendBlob(const std::string& name, std::string blob) {
  proto::ControlFrame frame;
  frame.mutable_blob()->set_name(name);
  frame.mutable_blob()->set_blob(std::move(blob));
  return SendIfRunning(frame);
}

absl::Status Member::Report(std::string bytes) {
  proto::ControlFrame frame;
  frame.set_report(std::move(bytes));
  return SendIfRunning(frame);
}

absl::Status Member::Leave() {
  if (state_ == State::kLeaving) return absl::OkStatus();
  proto::ControlFrame frame;
  frame.mutable_leave();
  RETURN_IF_ERROR(SendIfRunning(frame));
  state_ = State::kLeaving;
  return absl::OkStatus();
}

void Member::Abort(const absl::Status& cause, Nanoseconds now) {
  CHECK(!cause.ok()) << "an abort needs a cause";
  if (state_ == State::kAborting || state_ == State::kEnded) return;
  cause_ = Shortened(cause);
  if (!connected_) return End(cause_);
  state_ = State::kAborting;
  abort_deadline_ = now + options_.limits.abort;
  Send(AbortFrame(cause_), true);
}

void Member::Despair(const absl::Status& why) {
  if (state_ == State::kAborting) return End(cause_);
  if (connected_ && is_welcome()) Send(AbortFrame(Shortened(why)), true);
  End(why);
}

void Member::End(const absl::Status& status) {
  const bool open = connected_ || state_ == State::kConnecting;
  state_ = State::kEnded;
  cause_ = status;
  if (open) outputs_.emplace_back(CloseConnection{});
  outputs_.emplace_back(Ended{status});
}

ControlOutputs Member::TakeOutputs() { return std::exchange(outputs_, {}); }

Nanoseconds Member::next_tick() const {
  switch (state_) {
    case State::kEnded:
      return kForever;
    case State::kAborting:
      return std::min(ticks_.next(), abort_deadline_);
    case State::kWaiting:
      return std::min({ticks_.next(), retry_, join_deadline_});
    case State::kConnecting:
    case State::kPresenting:
      return std::min(ticks_.next(), join_deadline_);
    default:
      return std::min(ticks_.next(), heartbeat_due_);
  }
}

absl::Status Member::SendIfRunning(const proto::ControlFrame& frame) {
  if (state_ == State::kEnded && !cause_.ok()) return cause_;
  if (state_ != State::kRunning) {
    return absl::FailedPreconditionError(absl::StrCat("process ", options_.self.process, " is not in a running job"));
  }
  RETURN_IF_ERROR(CheckFrameFits(frame, options_.limits.frame_bytes));
  Send(frame);
  return absl::OkStatus();
}

void Member::Send(const proto::ControlFrame& frame, bool only_this) {
  outputs_.emplace_back(SendFrame{{}, EncodeFrame(frame), only_this});
}

}  // namespace sluice
