// The address at which processes on other hosts reach this one.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace sluice::tools {

// Of the network interface `interface` ("eth0"), or that address itself, if it isn't empty. Else the one from which
// packets to `peer` (a name or an address of another host) leave; if that can't be found, the one at which ssh reached
// this host (`ssh_connection`: the variable SSH_CONNECTION, or empty). Nothing is sent, but names may be looked up.
// NOT_FOUND: with what there is to choose from.
absl::StatusOr<std::string> AddressForOthers(const std::string& interface, const std::string& peer,
                                             const std::string& ssh_connection);

// The address of this machine from which packets to `peer` leave; empty: none is found, or it is loopback's. Nothing is
// sent, but names may be looked up.
std::string AddressTowards(const std::string& peer);

// Whether `host` is a name (not an address, nor localhost) that leads to loopback alone on this machine, as its own name
// does where /etc/hosts says 127.0.1.1.
bool IsNameOfLoopback(const std::string& host);

}  // namespace sluice::tools
