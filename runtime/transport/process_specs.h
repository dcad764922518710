// Channels and groups on their way to other processes, and the check that all describe them alike.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/transport.h"

namespace sluice {

// Gives `mine` to all processes and returns what each gave, in order of the process number. Called by every process
// once for each name, in the same order.
using ExchangeBlobs =
    std::function<absl::StatusOr<std::vector<std::string>>(const std::string& name, std::string mine)>;

namespace internal {

// What one process has in common with others.
struct Specs {
  std::vector<ChannelSpec> channels;
  std::vector<GroupSpec> groups;
};

std::string Encode(const Specs& specs);
// INVALID_ARGUMENT: not what Encode() makes.
absl::StatusOr<Specs> DecodeSpecs(const std::string& text);

// Checks what concerns process `self` against what all have told. INVALID_ARGUMENT names both descriptions.
absl::Status CheckAgreement(const std::vector<Specs>& all, const std::vector<int>& process_of, int self);

// What each process has in common with others, of which this one, number `self`, has `mine`. What can't be read, or
// doesn't agree, is no error here but the `verdict`: it is to be told in the next exchange, so that all hear of it.
absl::StatusOr<std::vector<Specs>> ExchangeSpecs(const ExchangeBlobs& exchange, const Specs& mine,
                                                 const std::vector<int>& process_of, int self, absl::Status* verdict);

}  // namespace internal
}  // namespace sluice
