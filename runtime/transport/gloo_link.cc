#include "runtime/transport/gloo_link.h"

#include <arpa/inet.h>
#include <gloo/transport/context.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sluice::internal {
namespace {

using std::chrono::milliseconds;

// The pairs of a link in its context.
constexpr int kSelf = 0, kOut = 1, kIn = 2, kSize = 3;

constexpr uint64_t kWordsTag = ~uint64_t{0};
constexpr milliseconds kNever = std::chrono::hours(24 * 365);
// Gloo waits five times as long for a connection.
constexpr milliseconds kConnectTimeout = std::chrono::seconds(4);
constexpr milliseconds kTokenTimeout = std::chrono::seconds(20);
// How long an interrupted send may take to hand the kernel what it has begun, so that last words can follow it.
constexpr int64_t kDrainMilliseconds = 1000;
constexpr Nanoseconds kWaitForLastWords = kSecond;

// The end of the first piece says when both ends were there; the others are large enough not to cost bandwidth, and
// small enough that slow progress is seen and that other messages get their turn.
constexpr int64_t kFirstPiece = 4 << 20;
constexpr int64_t kPiece = 4 << 20;

int64_t PieceBegin(int64_t piece) { return piece == 0 ? 0 : kFirstPiece + (piece - 1) * kPiece; }
int64_t PiecesOf(int64_t bytes) { return bytes <= kFirstPiece ? 1 : 1 + (bytes - kFirstPiece + kPiece - 1) / kPiece; }

// How last words travel.
struct Words {
  int32_t code = 0;
  int32_t length = 0;
  char text[2040] = {};
};

Words Encode(const absl::Status& status) {
  Words words{.code = static_cast<int32_t>(status.code())};
  words.length = static_cast<int32_t>(status.message().copy(words.text, sizeof(words.text)));
  return words;
}

absl::Status Decode(const Words& words) {
  const auto length = std::clamp<int32_t>(words.length, 0, sizeof(words.text));
  return absl::Status(static_cast<absl::StatusCode>(words.code), absl::string_view(words.text, length));
}

// Gloo begins its messages with the place in its source.
absl::string_view WithoutPlace(absl::string_view message) {
  const size_t end = message.find("] ");
  return absl::StartsWith(message, "[") && end != message.npos ? message.substr(end + 2) : message;
}

// Gloo keeps count of the peer's receives; there is no public way to ask.
struct Counts : gloo::transport::Context {
  static bool PeerWaits(gloo::transport::Context& context, uint64_t tag) {
    std::lock_guard lock(context.*(&Counts::mutex_));
    for (const Tally& tally : context.*(&Counts::pendingOperations_)) {
      const std::vector<rank_t>& peers = tally.getRecvList();
      if (tally.slot == tag && std::find(peers.begin(), peers.end(), kOut) != peers.end()) return true;
    }
    return false;
  }
};

// Whether a socket can be bound there. Gloo finds out too, but loses memory over it.
absl::Status CheckAddress(const std::string& host) {
  const addrinfo hints{.ai_socktype = SOCK_STREAM};
  addrinfo* all = nullptr;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &all); error != 0) {
    return absl::InvalidArgumentError(gai_strerror(error));
  }
  const auto free = absl::MakeCleanup([all] { freeaddrinfo(all); });
  int error = 0;
  for (const addrinfo* one = all; one != nullptr; one = one->ai_next) {
    const int fd = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
    error = fd >= 0 && bind(fd, one->ai_addr, one->ai_addrlen) == 0 ? 0 : errno;
    if (fd >= 0) close(fd);
    if (error == 0) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(std::strerror(error));
}

std::string Text(const std::vector<char>& bytes) { return std::string(bytes.begin(), bytes.end()); }
std::vector<char> Bytes(absl::string_view text) { return std::vector<char>(text.begin(), text.end()); }

}  // namespace

// Posts pieces in the thread that moves the bytes.
class GlooPoster final : public gloo::transport::tcp::Handler {
 public:
  explicit GlooPoster(gloo::transport::tcp::Device* device) : device_(device), bell_(eventfd(0, EFD_NONBLOCK)) {
    CHECK_GE(bell_, 0) << "no descriptor is left";
    device_->registerDescriptor(bell_, EPOLLIN, this);
  }
  ~GlooPoster() override {
    device_->unregisterDescriptor(bell_, this);
    std::lock_guard posting(posting_);  // after the last call of handleEvents()
    close(bell_);
  }

  void Add(GlooMessage* message, int64_t piece) {
    bool first = false;
    {
      std::lock_guard lock(mutex_);
      first = waiting_.empty();
      waiting_.push_back({message, piece});
    }
    if (first) eventfd_write(bell_, 1);
  }
  // The message is not touched any more when this returns.
  void Forget(GlooMessage* message) {
    std::lock_guard posting(posting_);
    std::lock_guard lock(mutex_);
    std::erase_if(waiting_, [&](const auto& post) { return post.first == message; });
  }
  // Nothing is posted over the link any more when this returns; messages of which something was to be are interrupted.
  void Leave(GlooLink* link) {
    std::lock_guard posting(posting_);
    link->posts_ = false;
  }

  void handleEvents(int) override {
    eventfd_t rings;
    eventfd_read(bell_, &rings);
    std::lock_guard posting(posting_);
    taken_.clear();
    {
      std::lock_guard lock(mutex_);
      taken_.swap(waiting_);
    }
    for (const auto& [message, piece] : taken_) {
      if (message->link()->posts_) {
        message->Give(piece);
      } else {
        message->Interrupt();
      }
    }
  }

 private:
  gloo::transport::tcp::Device* const device_;
  const int bell_;
  std::mutex posting_;  // held while pieces are posted
  std::mutex mutex_;
  std::vector<std::pair<GlooMessage*, int64_t>> waiting_, taken_;
};

GlooDevice::GlooDevice(std::shared_ptr<gloo::transport::Device> device)
    : device_(std::move(device)),
      poster_(std::make_unique<GlooPoster>(static_cast<gloo::transport::tcp::Device*>(device_.get()))) {}
GlooDevice::~GlooDevice() = default;

absl::StatusOr<std::unique_ptr<GlooDevice>> GlooDevice::Create(const std::string& where) {
  // Writing to a process that has died is an error to report, not a signal to die of.
  struct sigaction action = {};
  if (sigaction(SIGPIPE, nullptr, &action) == 0 && action.sa_handler == SIG_DFL) signal(SIGPIPE, SIG_IGN);
  gloo::transport::tcp::attr attributes;
  const bool is_interface = if_nametoindex(where.c_str()) != 0;
  (is_interface ? attributes.iface : attributes.hostname) = where;
  std::string why;
  if (const absl::Status status = is_interface ? absl::OkStatus() : CheckAddress(where); !status.ok()) {
    why = std::string(status.message());
  } else {
    try {
      return std::unique_ptr<GlooDevice>(new GlooDevice(gloo::transport::tcp::CreateDevice(attributes)));
    } catch (const std::exception& error) {
      why = std::string(WithoutPlace(error.what()));
    }
  }
  return absl::InvalidArgumentError(absl::StrCat("can't listen on interface or address '", where, "': ", why,
                                                 "; `ip address` lists those of this machine"));
}

absl::StatusOr<std::string> GlooDevice::AddressForOthers() {
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return absl::InternalError("the network interfaces can't be listed");
  const auto free = absl::MakeCleanup([all] { freeifaddrs(all); });
  for (const ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    const bool usable = (one->ifa_flags & IFF_UP) != 0 && (one->ifa_flags & IFF_LOOPBACK) == 0;
    if (!usable || one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET) continue;
    char text[INET_ADDRSTRLEN];
    return inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr, text, sizeof(text));
  }
  return absl::FailedPreconditionError(
      "no network interface has an address that other hosts can reach: name one by the interface option");
}

absl::StatusOr<std::unique_ptr<GlooLink>> GlooLink::Listen(World* world, const GlooDevice& device, std::string peer) {
  auto link = std::unique_ptr<GlooLink>(new GlooLink(world, std::move(peer)));
  link->poster_ = device.poster_.get();
  const absl::Status status = link->Try([&] {
    link->context_ = device.device_->createContext(kSelf, kSize);
    link->context_->setTimeout(kConnectTimeout);
    link->out_ = link->context_->createPair(kOut).get();
    link->in_ = link->context_->createPair(kIn).get();
    link->address_ = Text(link->out_->address().bytes()) + Text(link->in_->address().bytes());
  });
  if (!status.ok()) return status;
  return link;
}

GlooLink::GlooLink(World* world, std::string peer) : world_(world), peer_(std::move(peer)) {}

GlooLink::~GlooLink() {
  CHECK(messages_.empty()) << "a message outlives its link";
  Close();
}

void GlooLink::Close() {
  PrepareToClose();
  if (ear_ != nullptr) ear_->abortWaitRecv();
  if (ear_ended_) world_->Wait(ear_ended_).IgnoreError();
}

absl::Status GlooLink::Try(const std::function<void()>& body) const {
  try {
    body();
    return absl::OkStatus();
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("the connection to ", peer_, ": ", WithoutPlace(error.what())));
  }
}

absl::Status GlooLink::Connect(const std::string& token, const Peer& peer) {
  if (peer.address.size() != address_.size()) {
    return absl::InvalidArgumentError(absl::StrCat(peer_, " has given an address of ", peer.address.size(),
                                                   " bytes, not of ", address_.size(), ": another version?"));
  }
  return Try([&] {
    ConnectPairs(peer);
    ShowTokens(token, peer.token);
    context_->setTimeout(kNever);
  });
}

// Both ends connect the same pair first, or each may wait for the other's second.
void GlooLink::ConnectPairs(const Peer& peer) {
  const size_t half = peer.address.size() / 2;
  const std::vector<char> peer_out = Bytes(absl::string_view(peer.address).substr(0, half));
  const std::vector<char> peer_in = Bytes(absl::string_view(peer.address).substr(half));
  if (peer.calls_first) out_->connect(peer_in);
  in_->connect(peer_out);
  if (!peer.calls_first) out_->connect(peer_in);
}

// Whoever connected to the port may be anybody.
void GlooLink::ShowTokens(const std::string& token, const std::string& wanted) {
  std::string mine = token, shown(wanted.size(), '\0');
  const auto mouth = context_->createUnboundBuffer(mine.data(), mine.size());
  const auto ear = context_->createUnboundBuffer(shown.data(), shown.size());
  ear->recv(kIn, kWordsTag);
  mouth->send(kOut, kWordsTag);
  mouth->waitSend(kTokenTimeout);
  ear->waitRecv(kTokenTimeout);
  if (shown != wanted) throw std::runtime_error("somebody else has connected to the port that it was to connect to");
}

bool GlooLink::PeerWaits(uint64_t tag) const { return Counts::PeerWaits(*context_, tag); }

void GlooLink::Watch(std::function<void(const absl::Status&)> ended) {
  hears_ = std::make_unique<char[]>(sizeof(Words));
  heard_ = MakeRef<Signal>();
  ear_ = context_->createUnboundBuffer(hears_.get(), sizeof(Words));
  ear_ended_ = world_->Spawn({.name = "gloo ear"}, [this, ended = std::move(ended)] { Hear(ended); });
}

void GlooLink::Hear(const std::function<void(const absl::Status&)>& ended) {
  bool words = false;
  absl::Status status = Try([&] {
    ear_->recv(kIn, kWordsTag);
    words = ear_->waitRecv();
  });
  if (words) status = Decode(*reinterpret_cast<const Words*>(hears_.get()));
  heard_->Set(status, world_->Now());
  const bool closing = !words && status.ok();
  if (!closing) ended(status);
}

void GlooLink::Say(const absl::Status& last_words) {
  std::lock_guard lock(mutex_);
  if (std::exchange(has_spoken_, true)) return;
  says_ = std::make_unique<char[]>(sizeof(Words));
  *reinterpret_cast<Words*>(says_.get()) = Encode(last_words);
  mouth_ = context_->createUnboundBuffer(says_.get(), sizeof(Words));
  // A peer that is gone hears nothing.
  if (!Try([&] { mouth_->send(kOut, kWordsTag); }).ok()) mouth_ = nullptr;
}

// Whoever comes second waits for the first, or it would close the pairs meanwhile.
void GlooLink::PrepareToClose() {
  poster_->Leave(this);
  std::lock_guard speaking(speaking_);
  std::unique_ptr<gloo::transport::UnboundBuffer> mouth;
  {
    std::lock_guard lock(mutex_);
    mouth = std::move(mouth_);
  }
  if (mouth != nullptr) Try([&] { mouth->waitSend(milliseconds(kDrainMilliseconds)); }).IgnoreError();
}

void GlooLink::Interrupt() {
  std::lock_guard lock(mutex_);
  if (std::exchange(interrupted_, true)) return;
  for (GlooMessage* message : messages_) message->Interrupt();
}

absl::Status GlooLink::CauseOf(const absl::Status& status) {
  if (!heard_) return status;
  bool interrupted = false;
  {
    std::lock_guard lock(mutex_);
    interrupted = interrupted_;
  }
  if (!interrupted) world_->WaitAny({heard_}, world_->Now() + kWaitForLastWords);
  if (!heard_->Done()) return status;
  return heard_->status().ok() ? absl::UnavailableError(absl::StrCat(peer_, " has left")) : heard_->status();
}

GlooMessage::GlooMessage(GlooLink* link, Direction direction, uint64_t tag, std::byte* data, int64_t bytes)
    : link_(link),
      direction_(direction),
      tag_(tag),
      bytes_(bytes),
      pieces_(PiecesOf(bytes)),
      buffer_(link->context_->createUnboundBuffer(data, bytes)) {
  std::lock_guard lock(link->mutex_);
  link->messages_.push_back(this);
  if (link->interrupted_) Interrupt();
}

GlooMessage::~GlooMessage() {
  if (given_ < posted_) link_->poster_->Forget(this);
  std::lock_guard lock(link_->mutex_);
  std::erase(link_->messages_, this);
}

int64_t GlooMessage::BytesOf(int64_t piece) const {
  return std::min(PieceBegin(piece + 1), bytes_) - PieceBegin(piece);
}

void GlooMessage::PostPiece() { link_->poster_->Add(this, posted_++); }
void GlooMessage::PostPieceHere() { Give(posted_++); }

void GlooMessage::Give(int64_t piece) {
  const absl::Status status = link_->Try([&] {
    if (direction_ == Direction::kSend) {
      buffer_->send(kOut, tag_, PieceBegin(piece), BytesOf(piece));
    } else {
      buffer_->recv(kIn, tag_, PieceBegin(piece), BytesOf(piece));
    }
  });
  if (!status.ok()) Interrupt();
  ++given_;
}

bool GlooMessage::Wait(int64_t limit) {
  const milliseconds time = limit < 0 ? gloo::transport::kUnsetTimeout : milliseconds(limit);
  return direction_ == Direction::kSend ? buffer_->waitSend(time) : buffer_->waitRecv(time);
}

// After an interruption a wait only asks whether the piece has moved. If it hasn't, the link closes: all has failed.
absl::Status GlooMessage::WaitForPiece() {
  bool moved = false;
  absl::Status status = link_->Try([&] {
    moved = !woken_ && Wait(-1);
    woken_ |= !moved;
    if (!woken_) return;
    link_->PrepareToClose();
    moved = Wait(direction_ == Direction::kSend ? kDrainMilliseconds : 0);
  });
  if (moved) link_->bytes_moved_.fetch_add(BytesOf(waited_), std::memory_order_relaxed);
  ++waited_;
  if (status.ok() && !moved) status = absl::CancelledError("interrupted");
  return status;
}

void GlooMessage::Interrupt() {
  if (direction_ == Direction::kSend) {
    buffer_->abortWaitSend();
  } else {
    buffer_->abortWaitRecv();
  }
}

}  // namespace sluice::internal
