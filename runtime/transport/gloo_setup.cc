#include "runtime/transport/gloo_setup.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "proto/transport.pb.h"

namespace sluice::internal {
namespace {

constexpr int kAttempts = 3;

// "process 2 (ranks 4, 5)"
std::string NameOf(int process, const std::vector<int>& process_of) {
  std::vector<size_t> ranks;
  for (size_t rank = 0; rank < process_of.size(); ++rank) {
    if (process_of[rank] == process) ranks.push_back(rank);
  }
  return absl::StrCat("process ", process, ranks.size() == 1 ? " (rank " : " (ranks ", absl::StrJoin(ranks, ", "), ")");
}

class Setup {
 public:
  Setup(World* world, const GlooHubOptions& options, const Specs& specs, std::unique_ptr<GlooDevice>* device)
      : world_(world),
        options_(options),
        specs_(specs),
        device_(*device),
        processes_(1 + *std::max_element(options.process_of.begin(), options.process_of.end())),
        links_(processes_) {}

  absl::StatusOr<std::vector<std::unique_ptr<GlooLink>>> Run() {
    RETURN_IF_ERROR(ExchangeSpecs());
    ListPeers();
    absl::Status status = verdict_;
    if (status.ok()) status = Listen();
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      RETURN_IF_ERROR(ExchangeAddresses(attempt, status));
      ConnectLinks();
      RETURN_IF_ERROR(ExchangeResults(attempt));
      if (all_connected_) return std::move(links_);
      status = Listen();
    }
    return absl::UnavailableError(absl::StrCat("processes can't reach each other: ", why_));
  }

 private:
  absl::StatusOr<std::vector<std::string>> Exchange(const std::string& name, const std::string& mine) {
    ASSIGN_OR_RETURN(std::vector<std::string> all, options_.exchange(absl::StrCat("transport/", name), mine));
    if (static_cast<int>(all.size()) == processes_) return all;
    return absl::InternalError(absl::StrCat("there are ", processes_, " processes, ", all.size(), " have answered"));
  }
  absl::StatusOr<std::vector<proto::TransportLinks>> Exchange(const std::string& name,
                                                              const proto::TransportLinks& mine) {
    ASSIGN_OR_RETURN(const std::vector<std::string> all, Exchange(name, mine.SerializeAsString()));
    std::vector<proto::TransportLinks> messages(all.size());
    for (size_t i = 0; i < all.size(); ++i) {
      if (!messages[i].ParseFromString(all[i])) return absl::InternalError("an answer can't be read");
    }
    return messages;
  }

  absl::Status ExchangeSpecs();
  void ListPeers();
  absl::Status Listen();
  absl::Status ExchangeAddresses(int attempt, const absl::Status& status);
  void ConnectLinks();
  absl::Status ExchangeResults(int attempt);
  std::string NewToken();

  World* const world_;
  const GlooHubOptions& options_;
  const Specs& specs_;
  std::unique_ptr<GlooDevice>& device_;
  const int processes_;
  absl::Status verdict_;  // of the specs
  std::set<int> peers_;   // without a connection
  std::map<int, std::string> tokens_;
  std::map<int, GlooLink::Peer> addresses_;
  std::map<int, std::string> failed_;
  bool all_connected_ = false;
  std::string why_;
  std::vector<std::unique_ptr<GlooLink>> links_;
};

absl::Status Setup::ExchangeSpecs() {
  const auto exchange = [this](const std::string& name, const std::string& mine) { return Exchange(name, mine); };
  return internal::ExchangeSpecs(exchange, specs_, options_.process_of, options_.process, &verdict_).status();
}

void Setup::ListPeers() {
  const auto add = [&](WorldRank rank) { peers_.insert(options_.process_of[rank.index()]); };
  for (const ChannelSpec& spec : specs_.channels) {
    add(spec.sender);
    add(spec.receiver);
  }
  for (const GroupSpec& spec : specs_.groups) std::for_each(spec.members.begin(), spec.members.end(), add);
  peers_.erase(options_.process);
}

absl::Status Setup::Listen() {
  if (peers_.empty()) return absl::OkStatus();
  if (device_ == nullptr) {
    std::string where = !options_.interface.empty() ? options_.interface : "127.0.0.1";
    if (options_.interface.empty() && !options_.one_host) {
      ASSIGN_OR_RETURN(where, GlooDevice::AddressForOthers());
    }
    ASSIGN_OR_RETURN(device_, GlooDevice::Create(where));
  }
  for (const int peer : peers_) {
    ASSIGN_OR_RETURN(links_[peer], GlooLink::Listen(world_, *device_, NameOf(peer, options_.process_of)));
  }
  return absl::OkStatus();
}

std::string Setup::NewToken() {
  std::string token;
  for (int i = 0; i < 2; ++i) {
    const uint64_t bits = world_->Random();
    token.append(reinterpret_cast<const char*>(&bits), sizeof(bits));
  }
  return token;
}

absl::Status Setup::ExchangeAddresses(int attempt, const absl::Status& status) {
  proto::TransportLinks mine;
  mine.set_code(static_cast<int>(status.code()));
  mine.set_error(std::string(status.message()));
  tokens_.clear();
  addresses_.clear();
  for (const int peer : peers_) {
    if (!status.ok()) break;
    auto* link = mine.add_links();
    link->set_process(peer);
    link->set_address(links_[peer]->address());
    link->set_token(tokens_[peer] = NewToken());
  }
  ASSIGN_OR_RETURN(const std::vector<proto::TransportLinks> all, Exchange(absl::StrCat("links/", attempt), mine));
  RETURN_IF_ERROR(status);
  for (int process = 0; process < processes_; ++process) {
    if (all[process].code() != 0) {
      return absl::Status(static_cast<absl::StatusCode>(all[process].code()), all[process].error());
    }
    for (const auto& link : all[process].links()) {
      if (link.process() != options_.process) continue;
      addresses_[process] = {
          .address = link.address(), .token = link.token(), .calls_first = options_.process < process};
    }
  }
  return absl::OkStatus();
}

// All processes take the pairs of processes in the same order, so that no circle waits for itself.
void Setup::ConnectLinks() {
  failed_.clear();
  std::vector<int> order(peers_.begin(), peers_.end());
  std::sort(order.begin(), order.end(),
            [&](int a, int b) { return std::minmax(a, options_.process) < std::minmax(b, options_.process); });
  for (const int peer : order) {
    const absl::Status status = links_[peer]->Connect(tokens_[peer], addresses_[peer]);
    if (!status.ok()) failed_[peer] = std::string(status.message());
  }
}

// What has failed at one end has failed.
absl::Status Setup::ExchangeResults(int attempt) {
  proto::TransportLinks mine;
  for (const auto& [peer, why] : failed_) (*mine.mutable_failed())[peer] = why;
  ASSIGN_OR_RETURN(const std::vector<proto::TransportLinks> all, Exchange(absl::StrCat("connected/", attempt), mine));
  peers_.clear();
  all_connected_ = true;
  for (int process = 0; process < processes_; ++process) {
    for (const auto& [peer, why] : all[process].failed()) {
      all_connected_ = false;
      why_ = absl::StrCat("process ", process, ": ", why);
      if (process == options_.process) peers_.insert(peer);
      if (peer == options_.process) peers_.insert(process);
    }
  }
  for (const int peer : peers_) links_[peer] = nullptr;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<GlooLink>>> ConnectProcesses(World* world, const GlooHubOptions& options,
                                                                        const Specs& specs,
                                                                        std::unique_ptr<GlooDevice>* device) {
  return Setup(world, options, specs, device).Run();
}

}  // namespace sluice::internal
