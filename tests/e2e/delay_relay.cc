// delay_relay MILLISECONDS NAMESPACE ADDRESS/BITS NAMESPACE ADDRESS/BITS
//
// A link with a delay between two network namespaces, made in user space, since not every kernel can delay packets: a
// tun device "far" in each, with the address given, and this program, which takes what leaves one and hands it to the
// other so much later. Prints "ready" when both are up; ends when it is killed, and the devices with it. Needs root.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void Die(const std::string& what) {
  std::fprintf(stderr, "delay_relay: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

void Enter(const std::string& name) {
  const std::string path = "/run/netns/" + name;
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0 || setns(file, CLONE_NEWNET) != 0) Die(path);
  close(file);
}

// "10.0.0.1/24" as address and mask.
void Parse(const std::string& text, in_addr* address, in_addr* mask) {
  const size_t slash = text.find('/');
  const int bits = slash == std::string::npos ? 32 : std::atoi(text.c_str() + slash + 1);
  if (inet_pton(AF_INET, text.substr(0, slash).c_str(), address) != 1 || bits < 1 || bits > 32) Die(text);
  mask->s_addr = htonl(~uint32_t{0} << (32 - bits));
}

void SetAddress(int control, ifreq request, unsigned long what, in_addr value) {
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = value};
  std::memcpy(&request.ifr_addr, &address, sizeof(address));
  if (ioctl(control, what, &request) != 0) Die("the address of the tun device");
}

// A tun device in this thread's namespace: its packets.
int OpenTun(const std::string& place) {
  in_addr address{}, mask{};
  Parse(place, &address, &mask);
  const int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (tun < 0) Die("/dev/net/tun");
  ifreq request{};
  std::strcpy(request.ifr_name, "far");
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (ioctl(tun, TUNSETIFF, &request) != 0) Die("a tun device");
  const int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  SetAddress(control, request, SIOCSIFADDR, address);
  SetAddress(control, request, SIOCSIFNETMASK, mask);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl(control, SIOCSIFFLAGS, &request) != 0) Die("the tun device can't be switched on");
  close(control);
  return tun;
}

// One direction: packets that are on their way.
struct Way {
  int from, to;
  std::deque<std::pair<Clock::time_point, std::vector<char>>> packets;

  void Take(Clock::duration delay) {
    char packet[1 << 16];
    for (;;) {
      const ssize_t bytes = read(from, packet, sizeof(packet));
      if (bytes <= 0) return;
      packets.emplace_back(Clock::now() + delay, std::vector<char>(packet, packet + bytes));
    }
  }
  // What can't be handed over is lost, as packets are.
  void HandOver() {
    for (; !packets.empty() && packets.front().first <= Clock::now(); packets.pop_front()) {
      const auto& bytes = packets.front().second;
      if (write(to, bytes.data(), bytes.size()) < 0 && errno == EBADF) Die("a tun device");
    }
  }
};

// How long poll() may sleep.
timespec UntilNext(const Way (&ways)[2]) {
  Clock::duration wait = std::chrono::seconds(1);
  for (const Way& way : ways) {
    if (!way.packets.empty()) wait = std::min(wait, way.packets.front().first - Clock::now());
  }
  const auto nanoseconds = std::max<int64_t>(0, std::chrono::nanoseconds(wait).count());
  return {.tv_sec = nanoseconds / 1'000'000'000, .tv_nsec = nanoseconds % 1'000'000'000};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: delay_relay MILLISECONDS NAMESPACE ADDRESS/BITS NAMESPACE ADDRESS/BITS\n");
    return 2;
  }
  const auto delay = std::chrono::milliseconds(std::atoi(argv[1]));
  Enter(argv[2]);
  const int a = OpenTun(argv[3]);
  Enter(argv[4]);
  const int b = OpenTun(argv[5]);
  std::printf("ready\n");
  std::fflush(stdout);
  Way ways[2] = {{a, b, {}}, {b, a, {}}};
  for (;;) {
    pollfd files[2] = {{a, POLLIN, 0}, {b, POLLIN, 0}};
    const timespec wait = UntilNext(ways);
    ppoll(files, 2, &wait, nullptr);
    for (Way& way : ways) {
      way.Take(delay);
      way.HandOver();
    }
  }
}
