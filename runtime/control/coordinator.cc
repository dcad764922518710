#include "runtime/control/coordinator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace sluice {
namespace {

// Anybody can make the log longer by knocking; a line for each of these is enough.
constexpr int kNotesMax = 50;

// Takes the same time wherever the two differ.
bool EqualInConstantTime(absl::string_view given, absl::string_view expected) {
  volatile uint8_t difference = given.size() != expected.size();
  for (size_t i = 0; i < given.size(); ++i) {
    difference = difference | static_cast<uint8_t>(given[i] ^ expected[i % expected.size()]);
  }
  return difference == 0;
}

ProcessIdentity IdentityOf(const proto::ControlFrame::Hello& hello) {
  ProcessIdentity who{
      .process = hello.process(), .host = hello.host(), .process_id = hello.process_id(), .instance = hello.instance()};
  for (int rank : hello.world_ranks()) who.ranks.push_back(WorldRank(rank));
  for (const auto& one : hello.fingerprints()) who.fingerprints.push_back({one.name(), one.value()});
  return who;
}

}  // namespace

Coordinator::Coordinator(Options options, Nanoseconds now)
    : options_(std::move(options)),
      roll_(options_.roll),
      exchange_(options_.roll.processes, options_.limits.frame_bytes),
      join_deadline_(now + options_.limits.join),
      now_(now),
      ticks_(options_.limits.heartbeat, now) {
  CHECK(!options_.token.empty());
}

void Coordinator::Opened(ConnectionId id, const std::string& address, Nanoseconds now) {
  connections_.emplace(id, Connection{.id = id,
                                      .address = address,
                                      .reader = FrameReader(options_.limits.hello_bytes),
                                      .opened = now,
                                      .heard = now});
}

void Coordinator::Received(ConnectionId id, absl::string_view bytes, Nanoseconds now) {
  const auto found = connections_.find(id);
  if (found == connections_.end() || found->second.closing) return;
  Connection& from = found->second;
  from.heard = now_ = now;
  from.reader.Append(bytes);
  while (!from.closing) {
    absl::StatusOr<std::optional<proto::ControlFrame>> frame = from.reader.Next();
    if (!frame.ok()) return Distrust(from, frame.status(), now);
    if (!frame->has_value()) return;
    if (from.process < 0) {
      TakeHello(from, **frame, now);
    } else {
      TakeFrame(from, **frame, now);
    }
  }
}

void Coordinator::Closed(ConnectionId id, const std::string& why, Nanoseconds now) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  const Connection gone = std::move(found->second);
  connections_.erase(found);
  if (gone.process < 0) return;
  --process_connections_;
  if (gone.closing || roll_.has_left(gone.process)) return;
  Abort(absl::UnavailableError(absl::StrCat(roll_.name(gone.process), " has died: ", why)), now);
}

void Coordinator::TakeHello(Connection& from, const proto::ControlFrame& frame, Nanoseconds now) {
  if (!frame.has_hello()) return Distrust(from, absl::InvalidArgumentError("its first frame is not who it is"), now);
  const proto::ControlFrame::Hello& hello = frame.hello();
  if (hello.format_version() != kControlFormatVersion) {
    return Refuse(from, absl::FailedPreconditionError(absl::StrCat(
                            "process 0 speaks version ", kControlFormatVersion, " of the control protocol, and not ",
                            hello.format_version(), "; start all processes from one program")));
  }
  if (!EqualInConstantTime(hello.token(), options_.token)) {
    return Refuse(from, absl::UnauthenticatedError(
                            "the job token is another one than process 0's; give all processes of a job the same"));
  }
  const ProcessIdentity who = IdentityOf(hello);
  if (phase_ == Phase::kEnded) return RefuseAfterTheEnd(from, who);
  if (const absl::Status status = roll_.Check(who); !status.ok()) {
    roll_.Refuse(who, status);
    return Refuse(from, status);
  }
  // One that means something else can't be waited for: the job can't begin.
  if (const absl::Status status = roll_.Agrees(who); !status.ok()) {
    Abort(status, now);
    return RefuseAfterTheEnd(from, who);
  }
  Admit(from, who, now);
}

void Coordinator::Admit(Connection& from, const ProcessIdentity& who, Nanoseconds now) {
  from.process = who.process;
  from.reader.set_limit(options_.limits.frame_bytes);
  ++process_connections_;
  roll_.Join(who, from.id);
  proto::ControlFrame welcome;
  welcome.mutable_welcome()->set_heartbeat_limit_ns(options_.limits.heartbeat);
  Send(from, welcome);
  if (!roll_.all_joined()) return;
  if (const absl::Status status = roll_.CheckRanks(); !status.ok()) return Abort(status, now);
  phase_ = Phase::kRunning;
  proto::ControlFrame start;
  start.mutable_start();
  SendToAll(start, false);
  outputs_.emplace_back(Started{});
}

void Coordinator::TakeFrame(Connection& from, proto::ControlFrame& frame, Nanoseconds now) {
  using Frame = proto::ControlFrame;
  if (frame.has_heartbeat()) return TakeHeartbeat(from, frame.heartbeat(), now);
  if (frame.has_abort()) {
    return Abort(Annotate(StatusFromWire(frame.abort().code(), frame.abort().message()), roll_.name(from.process)),
                 now);
  }
  if (phase_ == Phase::kRunning && !roll_.has_left(from.process)) {
    if (frame.has_blob()) return TakeBlob(from, *frame.mutable_blob(), now);
    if (frame.body_case() == Frame::kReport) {
      outputs_.emplace_back(ReportArrived{from.process, std::move(*frame.mutable_report())});
      return;
    }
    if (frame.has_leave()) return TakeLeave(from, now);
  }
  Distrust(from,
           absl::InvalidArgumentError(
               absl::StrCat("a frame of kind ", static_cast<int>(frame.body_case()), " out of place")),
           now);
}

void Coordinator::TakeHeartbeat(Connection& from, const proto::ControlFrame::Heartbeat& heartbeat, Nanoseconds now) {
  moves_ += heartbeat.moves() - std::exchange(from.moves, heartbeat.moves());
  proto::ControlFrame frame;
  auto* const reply = frame.mutable_heartbeat_reply();
  reply->set_sent_ns(heartbeat.sent_ns());
  reply->set_answered_ns(now);
  reply->set_moves(moves_);
  Send(from, frame);
}

void Coordinator::TakeBlob(Connection& from, proto::ControlFrame::Blob& blob, Nanoseconds now) {
  auto blobs = exchange_.Add(from.process, blob.name(), std::move(*blob.mutable_blob()), now);
  if (!blobs.ok()) return Abort(Annotate(blobs.status(), roll_.name(from.process)), now);
  if (!blobs->has_value()) return;
  proto::ControlFrame answer;
  answer.mutable_blobs()->set_name(blob.name());
  for (std::string& one : **blobs) answer.mutable_blobs()->add_blobs(std::move(one));
  SendToAll(answer, false);
}

void Coordinator::TakeLeave(const Connection& from, Nanoseconds now) {
  roll_.Leave(from.process);
  if (roll_.all_left()) End(absl::OkStatus(), now);
}

void Coordinator::Distrust(Connection& from, const absl::Status& why, Nanoseconds now) {
  if (from.process >= 0) return Abort(Annotate(why, absl::StrCat("from ", roll_.name(from.process))), now);
  NoteStranger(from, why);
  Close(from);
}

void Coordinator::Refuse(Connection& from, const absl::Status& why) {
  NoteStranger(from, why);
  proto::ControlFrame refused;
  refused.mutable_refused()->set_code(static_cast<int>(why.code()));
  refused.mutable_refused()->set_message(std::string(Shortened(why).message()));
  Send(from, refused);
  Close(from);
}

void Coordinator::RefuseAfterTheEnd(Connection& from, const ProcessIdentity& who) {
  Refuse(from, cause_.ok() ? absl::FailedPreconditionError("the job has ended") : cause_);
  if (farewell_ == kForever || !roll_.Check(who).ok()) return;
  roll_.Join(who, from.id);  // as one that has been told
  if (roll_.all_joined()) farewell_ = kForever;
}

absl::Status Coordinator::Broadcast(std::string bytes) {
  if (phase_ == Phase::kEnded && !cause_.ok()) return cause_;
  if (phase_ != Phase::kRunning) return absl::FailedPreconditionError("a broadcast while the job doesn't run");
  proto::ControlFrame frame;
  frame.set_broadcast(std::move(bytes));
  RETURN_IF_ERROR(CheckFrameFits(frame, options_.limits.frame_bytes));
  SendToAll(frame, false);
  return absl::OkStatus();
}

void Coordinator::Abort(const absl::Status& cause, Nanoseconds now) {
  CHECK(!cause.ok()) << "an abort needs a cause";
  if (phase_ != Phase::kEnded) End(Shortened(cause), now);
}

void Coordinator::End(const absl::Status& status, Nanoseconds now) {
  // Who is not there at the deadline has had its time.
  if (!roll_.all_joined() && now < join_deadline_) {
    farewell_ = std::min(join_deadline_, now + options_.limits.farewell);
  }
  phase_ = Phase::kEnded;
  cause_ = status;
  proto::ControlFrame goodbye;
  goodbye.mutable_goodbye();
  SendToAll(status.ok() ? goodbye : AbortFrame(status), !status.ok());
  for (auto& [id, connection] : connections_) {
    if (connection.process >= 0) Close(connection);
  }
  outputs_.emplace_back(Ended{status});
}

void Coordinator::Tick(Nanoseconds now) {
  now_ = now;
  if (const Nanoseconds late = ticks_.Tick(now); late > 0) {
    for (auto& [id, connection] : connections_) {
      connection.heard = std::min(connection.heard + late, now);
      connection.opened = std::min(connection.opened + late, now);
    }
  }
  CheckStrangers(now);
  if (now >= farewell_) farewell_ = kForever;
  if (phase_ == Phase::kEnded) return;
  CheckHeartbeats(now);
  CheckExchanges(now);
  SendHeartbeats(now);
  if (phase_ == Phase::kJoining && now >= join_deadline_) {
    Abort(absl::DeadlineExceededError(absl::StrCat(roll_.Missing(), " within ", Seconds(options_.limits.join))), now);
  }
}

void Coordinator::CheckStrangers(Nanoseconds now) {
  for (auto& [id, connection] : connections_) {
    if (connection.process >= 0 || connection.closing || now - connection.opened < options_.limits.hello) continue;
    Distrust(connection,
             absl::DeadlineExceededError(absl::StrCat("it has not said who it is in ", Seconds(options_.limits.hello))),
             now);
  }
}

void Coordinator::CheckHeartbeats(Nanoseconds now) {
  const Connection* silent = nullptr;  // longest
  for (const auto& [id, connection] : connections_) {
    if (connection.process < 0 || roll_.has_left(connection.process)) continue;
    if (now - connection.heard <= options_.limits.heartbeat) continue;
    const auto order = [](const Connection& one) { return std::pair(one.heard, one.process); };
    if (silent == nullptr || order(connection) < order(*silent)) silent = &connection;
  }
  if (silent == nullptr) return;
  Abort(absl::UnavailableError(absl::StrCat(roll_.name(silent->process), " is dead or cut off: not heard of for ",
                                            Seconds(options_.limits.heartbeat))),
        now);
}

// A member whose own heartbeats wait behind something large gets no replies, and must hear something all the same.
void Coordinator::SendHeartbeats(Nanoseconds now) {
  if (phase_ == Phase::kEnded) return;
  proto::ControlFrame frame;
  frame.mutable_heartbeat()->set_sent_ns(now);
  const WireBytes bytes = EncodeFrame(frame);
  for (auto& [id, connection] : connections_) {
    if (connection.process < 0 || now - connection.spoken <= options_.limits.heartbeat / kHeartbeatsPerLimit) continue;
    connection.spoken = now;
    outputs_.emplace_back(SendFrame{id, bytes});
  }
}

void Coordinator::CheckExchanges(Nanoseconds now) {
  const std::optional<BlobExchange::Late> late = exchange_.BegunBefore(now - options_.limits.exchange);
  if (!late.has_value()) return;
  Abort(absl::DeadlineExceededError(
            absl::StrCat("exchange \"", late->name, "\" still waits for ", roll_.name(late->missing.front()),
                         late->missing.size() == 1 ? "" : absl::StrCat(" and ", late->missing.size() - 1, " others"),
                         " after ", Seconds(options_.limits.exchange))),
        now);
}

ControlOutputs Coordinator::TakeOutputs() { return std::exchange(outputs_, {}); }

Nanoseconds Coordinator::next_tick() const {
  return std::min({ticks_.next(), phase_ == Phase::kJoining ? join_deadline_ : kForever, farewell_});
}

bool Coordinator::accepting() const {
  return static_cast<int>(connections_.size()) - process_connections_ < options_.limits.strangers;
}

void Coordinator::SendToAll(const proto::ControlFrame& frame, bool only_this) {
  const WireBytes bytes = EncodeFrame(frame);
  for (auto& [id, connection] : connections_) {
    if (connection.process >= 0 && !connection.closing) outputs_.emplace_back(SendFrame{id, bytes, only_this});
  }
}

void Coordinator::Send(Connection& to, const proto::ControlFrame& frame) {
  to.spoken = now_;
  outputs_.emplace_back(SendFrame{to.id, EncodeFrame(frame)});
}

void Coordinator::Close(Connection& connection) {
  if (std::exchange(connection.closing, true)) return;
  outputs_.emplace_back(CloseConnection{connection.id});
}

void Coordinator::NoteStranger(const Connection& from, const absl::Status& why) {
  if (++notes_ > kNotesMax) return;
  outputs_.emplace_back(Note{absl::StrCat("a connection from ", from.address, " is closed: ", why.message(),
                                          notes_ == kNotesMax ? " (such lines end here)" : "")});
}

}  // namespace sluice
