#include "tools/launch/address.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <map>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "tools/launch/file.h"

namespace sluice::tools {
namespace {

// "10.0.0.1"; empty: no internet address.
std::string TextOf(const sockaddr* address) {
  if (address == nullptr || (address->sa_family != AF_INET && address->sa_family != AF_INET6)) return "";
  char text[NI_MAXHOST] = "";
  const socklen_t size = address->sa_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  return getnameinfo(address, size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0 ? text : "";
}

// By interface that is up; of several addresses the first, and IPv4 before IPv6.
std::map<std::string, std::string> AddressesByInterface() {
  std::map<std::string, std::string> addresses;
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) return addresses;
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(first, freeifaddrs);
  for (const int family : {AF_INET, AF_INET6}) {
    for (const ifaddrs* entry = first; entry != nullptr; entry = entry->ifa_next) {
      if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != family || (entry->ifa_flags & IFF_UP) == 0)
        continue;
      if (const std::string text = TextOf(entry->ifa_addr); !text.empty()) addresses.emplace(entry->ifa_name, text);
    }
  }
  return addresses;
}

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Addresses Resolve(const std::string& host, int flags) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_DGRAM;
  hints.ai_flags = flags;
  addrinfo* first = nullptr;
  if (getaddrinfo(host.c_str(), "9", &hints, &first) != 0) first = nullptr;
  return Addresses(first, freeaddrinfo);
}

// To connect a datagram socket asks the routing table, and sends nothing.
std::string SourceTowards(const std::string& peer) {
  const Addresses addresses = Resolve(peer, 0);
  for (const addrinfo* to = addresses.get(); to != nullptr; to = to->ai_next) {
    const File file(socket(to->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage from = {};
    socklen_t size = sizeof from;
    if (!file.is_open() || connect(file.get(), to->ai_addr, to->ai_addrlen) != 0) continue;
    if (getsockname(file.get(), reinterpret_cast<sockaddr*>(&from), &size) != 0) continue;
    return TextOf(reinterpret_cast<const sockaddr*>(&from));
  }
  return "";
}

bool IsLoopback(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    return ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
  }
  return address->sa_family == AF_INET6 &&
         IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
}

bool AllAreLoopback(const Addresses& addresses) {
  for (const addrinfo* one = addresses.get(); one != nullptr; one = one->ai_next) {
    if (!IsLoopback(one->ai_addr)) return false;
  }
  return addresses != nullptr;
}

std::string InterfacesInWords(const std::map<std::string, std::string>& addresses) {
  return absl::StrJoin(addresses, ", ", [](std::string* text, const auto& entry) {
    absl::StrAppend(text, entry.first, " (", entry.second, ")");
  });
}

}  // namespace

std::string AddressTowards(const std::string& peer) {
  const std::string source = SourceTowards(peer);
  return AllAreLoopback(Resolve(source, AI_NUMERICHOST)) ? "" : source;
}

bool IsNameOfLoopback(const std::string& host) {
  if (host == "localhost" || Resolve(host, AI_NUMERICHOST) != nullptr) return false;
  return AllAreLoopback(Resolve(host, 0));
}

absl::StatusOr<std::string> AddressForOthers(const std::string& interface, const std::string& peer,
                                             const std::string& ssh_connection) {
  const std::map<std::string, std::string> addresses = AddressesByInterface();
  if (!interface.empty()) {
    if (const auto found = addresses.find(interface); found != addresses.end()) return found->second;
    if (Resolve(interface, AI_NUMERICHOST) != nullptr) return interface;
    return absl::NotFoundError(absl::StrCat("--interface: there is no ", interface,
                                            " that is up and has an address, but ", InterfacesInWords(addresses)));
  }
  if (std::string source = SourceTowards(peer); !source.empty()) return source;
  // "client port server port"
  const std::vector<std::string> words = absl::StrSplit(ssh_connection, ' ');
  if (words.size() == 4) return words[2];
  return absl::NotFoundError(absl::StrCat("no address found at which ", peer,
                                          " could reach this host; choose by --interface from ",
                                          InterfacesInWords(addresses)));
}

}  // namespace sluice::tools
