// How long a large job takes to meet and to end: many light members in one process, over loopback, and a coordinator
// in a process of its own.
//   bazel run -c opt //tools/bench:rendezvous -- [MEMBERS]      1024 when left out
//
// join: from the first connection until the last member knows that all have joined and agree. exchange: each gives 64
// bytes, until the last has all of them. abort: from one member's abort until the last has the cause. memory: the
// coordinator's largest resident set, all of its program counted.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "runtime/control/control_plane.h"
#include "runtime/control/member.h"

namespace sluice {
namespace {

constexpr char kToken[] = "rendezvous";
constexpr size_t kBlobBytes = 64;
const std::vector<Fingerprint> kFingerprints = {{"job", "1a2b3c4d5e6f7081"}, {"plan", "8c7b6a5948372615"}};

void AllowOpenFiles() {
  rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// One member on a plain socket.
class Client {
 public:
  Client(World* world, int poll, int number, int port)
      : world_(world),
        poll_(poll),
        number_(number),
        port_(port),
        member_({.self = {.process = number,
                          .ranks = {WorldRank(number)},
                          .host = "localhost",
                          .fingerprints = kFingerprints},
                 .token = kToken,
                 .coordinator = absl::StrCat("127.0.0.1:", port)},
                world->Now()) {
    Apply();
  }

  void Ready(uint32_t events) {
    if ((events & EPOLLOUT) != 0 && !open_) {
      open_ = true;
      member_.Opened(world_->Now());
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) Receive();
    Apply();
  }
  void Tick() {
    member_.Tick(world_->Now());
    Apply();
  }
  void GiveBlob() {
    CHECK_OK(member_.SendBlob("bench", std::string(kBlobBytes, 'x')));
    Apply();
  }
  void Abort() {
    member_.Abort(absl::InternalError("the end of the benchmark"), world_->Now());
    Apply();
  }

  bool started() const { return started_; }
  bool has_blobs() const { return has_blobs_; }
  bool ended() const { return member_.ended(); }
  const absl::Status& cause() const { return cause_; }

 private:
  void Connect() {
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK(socket_ >= 0) << "raise the limit of open files (ulimit -n)";
    const int on = 1;
    setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(port_))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 || errno == EINPROGRESS);
    Watch(EPOLL_CTL_ADD);
  }
  void Watch(int operation) {
    epoll_event event{.events = EPOLLIN | (!open_ || !waiting_.empty() ? uint32_t{EPOLLOUT} : 0)};
    event.data.ptr = this;
    epoll_ctl(poll_, operation, socket_, &event);
  }
  void Receive() {
    static char buffer[64 << 10];
    while (socket_ >= 0) {
      const ssize_t bytes = ::recv(socket_, buffer, sizeof(buffer), 0);
      if (bytes < 0 && errno == EAGAIN) return;
      if (bytes <= 0) {
        member_.Closed("its connection was closed", world_->Now());
        return Close();
      }
      member_.Received(absl::string_view(buffer, static_cast<size_t>(bytes)), world_->Now());
    }
  }
  void Close() {
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
    open_ = false;
  }
  void Apply() {
    for (ControlOutput& output : member_.TakeOutputs()) {
      if (auto* send = std::get_if<SendFrame>(&output)) {
        waiting_ += *send->bytes;
      } else if (std::holds_alternative<struct Connect>(output)) {
        Connect();
      } else if (std::holds_alternative<CloseConnection>(output)) {
        Close();
      } else if (auto* ended = std::get_if<Ended>(&output)) {
        cause_ = ended->status;
      }
      started_ |= std::holds_alternative<Started>(output);
      has_blobs_ |= std::holds_alternative<BlobsArrived>(output);
    }
    if (socket_ < 0) return;
    if (open_ && !waiting_.empty()) {
      const ssize_t sent = ::send(socket_, waiting_.data(), waiting_.size(), MSG_NOSIGNAL);
      if (sent > 0) waiting_.erase(0, static_cast<size_t>(sent));
    }
    Watch(EPOLL_CTL_MOD);
  }

  World* const world_;
  const int poll_, number_, port_;
  Member member_;
  int socket_ = -1;
  bool open_ = false;
  std::string waiting_;  // to be sent
  bool started_ = false, has_blobs_ = false;
  absl::Status cause_;
};

class Clients {
 public:
  Clients(World* world, int members, int port) : world_(world), poll_(epoll_create1(0)) {
    clients_.reserve(static_cast<size_t>(members));
    for (int i = 1; i <= members; ++i) clients_.push_back(std::make_unique<Client>(world, poll_, i, port));
  }

  // Serves all until `done` holds for each.
  template <class Done>
  void Until(Done done) {
    Nanoseconds tick = world_->Now() + kSecond / 2;
    for (size_t i = 0; i < clients_.size();) {
      if (done(*clients_[i])) {
        ++i;
        continue;
      }
      CHECK(!clients_[i]->ended()) << "member " << i + 1 << ": " << clients_[i]->cause();
      epoll_event events[64];
      const int ready = epoll_wait(poll_, events, 64, 100);
      for (int k = 0; k < ready; ++k) static_cast<Client*>(events[k].data.ptr)->Ready(events[k].events);
      if (world_->Now() < tick) continue;
      for (const auto& client : clients_) client->Tick();
      tick = world_->Now() + kSecond / 2;
    }
  }
  const std::vector<std::unique_ptr<Client>>& all() const { return clients_; }

 private:
  World* const world_;
  const int poll_;
  std::vector<std::unique_ptr<Client>> clients_;
};

// Process 0: tells the port, then at the end the largest resident set in kilobytes.
void RunCoordinator(int members, int tell) {
  const std::unique_ptr<World> world = NewRealWorld();
  JoinOptions options{.processes = members + 1,
                      .world_size = members + 1,
                      .ranks = {WorldRank(0)},
                      .fingerprints = kFingerprints,
                      .token = kToken,
                      .host_name = "localhost"};
  options.on_listening = [tell](int port) { CHECK_EQ(write(tell, &port, sizeof(port)), ssize_t{sizeof(port)}); };
  {
    auto plane = ControlPlane::Join(world.get(), options);
    CHECK_OK(plane.status());
    CHECK_OK((*plane)->ExchangeBlobs("bench", std::string(kBlobBytes, 'x')).status());
    CHECK(!world->Wait((*plane)->cause()).ok());
  }
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const int kilobytes = static_cast<int>(usage.ru_maxrss);
  CHECK_EQ(write(tell, &kilobytes, sizeof(kilobytes)), ssize_t{sizeof(kilobytes)});
}

int ReadNumber(int from) {
  int number = 0;
  CHECK_EQ(read(from, &number, sizeof(number)), ssize_t{sizeof(number)}) << "the coordinator has failed";
  return number;
}

void RunMembers(int members, int hear) {
  const std::unique_ptr<World> world = NewRealWorld();
  const int port = ReadNumber(hear);
  const auto seconds_of = [&](auto work) {
    const Nanoseconds begin = world->Now();
    work();
    return static_cast<double>(world->Now() - begin) / kSecond;
  };
  std::unique_ptr<Clients> clients;
  std::printf("%d members\n  join      %6.3f s\n", members, seconds_of([&] {
                clients = std::make_unique<Clients>(world.get(), members, port);
                clients->Until([](const Client& client) { return client.started(); });
              }));
  std::printf("  exchange  %6.3f s\n", seconds_of([&] {
                for (const auto& client : clients->all()) client->GiveBlob();
                clients->Until([](const Client& client) { return client.has_blobs(); });
              }));
  std::printf("  abort     %6.3f s\n", seconds_of([&] {
                clients->all().back()->Abort();
                clients->Until([](const Client& client) { return client.ended(); });
              }));
  for (const auto& client : clients->all()) CHECK(client->cause() == clients->all()[0]->cause()) << client->cause();
  std::printf("  memory    %6.1f MiB at the coordinator\n", ReadNumber(hear) / 1024.0);
}

int Main(int members) {
  AllowOpenFiles();
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    RunCoordinator(members, ends[1]);
    return 0;
  }
  close(ends[1]);
  RunMembers(members, ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) { return sluice::Main(argc > 1 ? std::atoi(argv[1]) : 1024); }
