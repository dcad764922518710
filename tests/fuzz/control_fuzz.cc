// libFuzzer target: the control plane's frame parser and both state machines against any bytes in any order. The input
// is a list of operations; a broken promise aborts.
#include <cstdint>
#include <map>
#include <string>

#include "base/check.h"
#include "runtime/control/coordinator.h"
#include "runtime/control/member.h"

namespace sluice {
namespace {

constexpr int kProcesses = 3;
const std::string kToken = "token";

ControlLimits SmallLimits() {
  ControlLimits limits;
  limits.frame_bytes = 4096;
  limits.hello_bytes = 256;
  limits.strangers = 8;
  return limits;
}

// The input, taken apart from its beginning; zeros and nothing behind its end.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  uint8_t Byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  // A length byte, and as many bytes as it says.
  std::string Bytes() {
    const size_t wanted = Byte();
    const size_t size = std::min(wanted, size_);
    std::string bytes(reinterpret_cast<const char*>(data_), size);
    data_ += size;
    size_ -= size;
    return bytes;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

std::string WithLength(const std::string& body) {
  std::string wire;
  for (int i = 0; i < 4; ++i) wire.push_back(static_cast<char>(body.size() >> (8 * i)));
  return wire + body;
}

std::string HelloOf(int process) {
  return *EncodeFrame(HelloFrame(
      {.process = process, .ranks = {WorldRank(process)}, .host = "h", .fingerprints = {{"plan", "1"}}}, kToken));
}

// Holds what a state machine puts out against what a shell may rely on.
class Shell {
 public:
  void Open(ConnectionId id) { closing_.emplace(id, false); }
  void Closed(ConnectionId id) { closing_.erase(id); }
  void Take(const ControlOutputs& outputs) {
    for (const ControlOutput& output : outputs) {
      if (auto* send = std::get_if<SendFrame>(&output)) {
        CHECK(closing_.contains(send->connection) && !closing_[send->connection]) << "sends after closing";
      } else if (auto* close = std::get_if<CloseConnection>(&output)) {
        CHECK(closing_.contains(close->connection) && !closing_[close->connection]) << "closes twice";
        closing_[close->connection] = true;
      } else if (std::holds_alternative<Ended>(output)) {
        CHECK(!ended_) << "ends twice";
        ended_ = true;
      } else {
        CHECK(!ended_ || std::holds_alternative<Note>(output)) << "news after the end";
      }
    }
  }
  bool ended() const { return ended_; }

 private:
  std::map<ConnectionId, bool> closing_;
  bool ended_ = false;
};

void FuzzCoordinator(Input input) {
  Coordinator coordinator({.roll = {.processes = kProcesses, .world_size = kProcesses, .fingerprints = {{"plan", "1"}}},
                           .token = kToken,
                           .limits = SmallLimits()},
                          0);
  Shell shell;
  Nanoseconds now = 0;
  int opened = 0;
  bool known = false;  // somebody has shown the token
  while (!input.empty()) {
    const uint8_t what = input.Byte();
    const ConnectionId id(opened == 0 ? 0 : what / 8 % opened);
    switch (what % 8) {
      case 0:
        if (!coordinator.accepting()) break;
        shell.Open(ConnectionId(opened));
        coordinator.Opened(ConnectionId(opened++), "a", now);
        break;
      case 1:
        coordinator.Received(id, input.Bytes(), now);
        break;
      case 2:
        coordinator.Received(id, WithLength(input.Bytes()), now);
        break;
      case 3:
        known = true;
        coordinator.Received(id, HelloOf(input.Byte() % (kProcesses + 1)), now);
        break;
      case 4:
        coordinator.Closed(id, "closed", now);
        shell.Closed(id);
        break;
      case 5:
        now += Nanoseconds{input.Byte()} * kSecond / 4;
        coordinator.Tick(now);
        break;
      case 6:
        coordinator.Broadcast(input.Bytes()).IgnoreError();
        break;
      case 7:
        if (known) coordinator.Abort(absl::InternalError("trouble"), now);
        break;
    }
    shell.Take(coordinator.TakeOutputs());
    CHECK(known || !shell.ended() || now >= SmallLimits().join) << "a stranger ended the job";
    CHECK_GE(coordinator.next_tick(), now - kSecond);
  }
}

void FuzzMember(Input input) {
  Member member({.self = {.process = 1, .ranks = {WorldRank(1)}}, .token = kToken, .limits = SmallLimits()}, 0);
  Shell shell;
  Nanoseconds now = 0;
  bool open = false;
  while (!input.empty()) {
    const uint8_t what = input.Byte();
    switch (what % 8) {
      case 0:
        if (open || member.ended()) break;
        open = true;
        shell.Open(ConnectionId());
        member.Opened(now);
        break;
      case 1:
        member.Received(input.Bytes(), now);
        break;
      case 2:
        member.Received(WithLength(input.Bytes()), now);
        break;
      case 3:
        // A connection that was told to close, or one that could not be made.
        member.Closed("closed", now);
        shell.Closed(ConnectionId());
        open = false;
        break;
      case 4:
        now += Nanoseconds{input.Byte()} * kSecond / 4;
        member.Tick(now);
        break;
      case 5:
        (what & 8 ? member.Report(input.Bytes()) : member.SendBlob("a", input.Bytes())).IgnoreError();
        break;
      case 6:
        member.Leave().IgnoreError();
        break;
      case 7:
        member.Abort(absl::InternalError("trouble"), now);
        break;
    }
    ControlOutputs outputs = member.TakeOutputs();
    // An attempt to connect has nothing to close in this shell.
    std::erase_if(outputs, [&](const ControlOutput& output) {
      return std::holds_alternative<Connect>(output) || (!open && std::holds_alternative<CloseConnection>(output));
    });
    shell.Take(outputs);
    CHECK_EQ(shell.ended(), member.ended());
  }
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const sluice::Input input(data + 1, size - 1);
  if (data[0] % 2 == 0) {
    sluice::FuzzCoordinator(input);
  } else {
    sluice::FuzzMember(input);
  }
  return 0;
}
