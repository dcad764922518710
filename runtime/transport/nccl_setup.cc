#include "runtime/transport/nccl_setup.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "proto/transport.pb.h"

namespace sluice::internal {
namespace {

constexpr Nanoseconds kTick = kMillisecond;
constexpr int64_t kGreetingBytes = 16;

// The first messages of a rank over one of its communicators.
struct Greeting {
  WorldRank rank;
  const CommunicatorSpec* communicator;
  Buffer memory;
  std::vector<cuda::NcclLeg> legs;
  EventRef done;
};

std::string NameOf(const CommunicatorSpec& communicator) {
  return absl::StrCat("queue ", communicator.queue.value(), ", ranks ",
                      absl::StrJoin(communicator.members, ", ",
                                    [](std::string* out, WorldRank rank) { absl::StrAppend(out, rank.value()); }));
}

class Setup {
 public:
  Setup(World* world, const NcclHubOptions& options, const Specs& specs, const std::map<WorldRank, Device*>& devices)
      : world_(world), options_(options), specs_(specs), devices_(devices) {}

  absl::StatusOr<NcclConnections> Run() {
    RETURN_IF_ERROR(ExchangeVersions());
    RETURN_IF_ERROR(ExchangeSpecs());
    RETURN_IF_ERROR(ExchangeId());
    deadline_ = world_->Now() + options_.connect_limit;
    absl::Status status = Join();
    if (status.ok()) status = Split();
    if (status.ok()) status = Greet();
    const absl::Status all = ExchangeStates("connected", status, "").status();
    if (all.ok()) return std::move(made_);
    for (const auto& [rank, nccl] : made_.ranks) nccl->Abort();
    return all;
  }

 private:
  absl::StatusOr<std::vector<std::string>> Exchange(const std::string& name, const std::string& mine) {
    return options_.exchange(absl::StrCat("nccl/", name), mine);
  }
  // The id that process 0 has given; or the first error of any process.
  absl::StatusOr<std::string> ExchangeStates(const std::string& name, const absl::Status& status,
                                             const std::string& id);
  absl::Status ExchangeVersions();
  absl::Status ExchangeSpecs();
  absl::Status ExchangeId();
  absl::Status Join();
  absl::Status Split();
  absl::Status Greet();
  absl::StatusOr<Greeting> GreetingOf(WorldRank rank, size_t communicator);
  // Until nothing is in progress in any rank here.
  absl::Status Settle(const std::string& what);
  // Whether this is so now, or the first error.
  absl::StatusOr<bool> AllSettled();

  World* const world_;
  const NcclHubOptions& options_;
  const Specs& specs_;
  const std::map<WorldRank, Device*>& devices_;
  absl::Status verdict_;
  std::string id_;
  Nanoseconds deadline_ = 0;
  std::vector<Greeting> greetings_;
  NcclConnections made_;
};

absl::StatusOr<std::string> Setup::ExchangeStates(const std::string& name, const absl::Status& status,
                                                  const std::string& id) {
  proto::NcclSetupState mine;
  mine.set_code(static_cast<int>(status.code()));
  mine.set_error(std::string(status.message()));
  mine.set_id(id);
  ASSIGN_OR_RETURN(const std::vector<std::string> all, Exchange(name, mine.SerializeAsString()));
  RETURN_IF_ERROR(status);
  std::string first_id;
  for (size_t process = 0; process < all.size(); ++process) {
    proto::NcclSetupState state;
    if (!state.ParseFromString(all[process])) return absl::InternalError("an answer can't be read");
    if (state.code() != 0) return absl::Status(static_cast<absl::StatusCode>(state.code()), state.error());
    if (process == 0) first_id = state.id();
  }
  return first_id;
}

absl::Status Setup::ExchangeVersions() {
  const absl::StatusOr<std::string> mine = cuda::NcclVersion();
  ASSIGN_OR_RETURN(const std::vector<std::string> all, Exchange("version", mine.ok() ? *mine : "none"));
  RETURN_IF_ERROR(mine.status());
  for (size_t process = 0; process < all.size(); ++process) {
    if (all[process] == all[0]) continue;
    return absl::FailedPreconditionError(absl::StrCat("process 0 has NCCL ", all[0], ", process ", process, " ",
                                                      all[process], ": all processes need the same version"));
  }
  return absl::OkStatus();
}

absl::Status Setup::ExchangeSpecs() {
  const auto exchange = [this](const std::string& name, const std::string& mine) { return Exchange(name, mine); };
  ASSIGN_OR_RETURN(const std::vector<Specs> all,
                   internal::ExchangeSpecs(exchange, specs_, options_.process_of, options_.process, &verdict_));
  if (verdict_.ok()) made_.plan = PlanCommunicators(all);
  return absl::OkStatus();
}

absl::Status Setup::ExchangeId() {
  std::string mine;
  if (options_.process == 0 && verdict_.ok()) {
    absl::StatusOr<std::string> made = cuda::NewNcclId();
    verdict_.Update(made.status());
    if (made.ok()) mine = *std::move(made);
  }
  ASSIGN_OR_RETURN(id_, ExchangeStates("id", verdict_, mine));
  return absl::OkStatus();
}

absl::Status Setup::Join() {
  for (const auto& [rank, device] : devices_) {
    ASSIGN_OR_RETURN(made_.ranks[rank], cuda::NcclRank::Join(world_, device,
                                                             {.id = id_,
                                                              .rank = rank.value(),
                                                              .ranks = static_cast<int>(options_.process_of.size()),
                                                              .channels_max = options_.channels_max}));
  }
  return Settle("joining the world");
}

absl::Status Setup::Split() {
  for (int split = 0; split < made_.plan.splits; ++split) {
    for (const auto& [rank, nccl] : made_.ranks) {
      int color = -1, key = 0;
      for (const CommunicatorSpec& communicator : made_.plan.communicators) {
        if (communicator.split != split || communicator.PlaceOf(rank) < 0) continue;
        color = communicator.color;
        key = communicator.PlaceOf(rank);
      }
      RETURN_IF_ERROR(nccl->StartSplit(color, key));
    }
    RETURN_IF_ERROR(Settle(absl::StrCat("split ", split, " of ", made_.plan.splits)));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Setup::AllSettled() {
  bool settled = true;
  for (const auto& [rank, nccl] : made_.ranks) {
    ASSIGN_OR_RETURN(const bool this_one, nccl->Poll());
    settled &= this_one;
  }
  return settled;
}

absl::Status Setup::Settle(const std::string& what) {
  for (;;) {
    ASSIGN_OR_RETURN(const bool settled, AllSettled());
    if (settled) return absl::OkStatus();
    if (world_->Now() >= deadline_) {
      return absl::DeadlineExceededError(absl::StrCat("NCCL: ", what, " has not ended after ",
                                                      options_.connect_limit / kSecond,
                                                      " s: see that all processes run, and that their hosts reach each "
                                                      "other (NCCL_SOCKET_IFNAME, NCCL_DEBUG=INFO)"));
    }
    world_->SleepUntil(world_->Now() + kTick);
  }
}

// NCCL connects two ranks when they first meet, and while it does nothing else goes on; so all meet now.
absl::Status Setup::Greet() {
  for (size_t i = 0; i < made_.plan.communicators.size(); ++i) {
    const CommunicatorSpec& communicator = made_.plan.communicators[i];
    for (const auto& [rank, nccl] : made_.ranks) {
      if (communicator.PlaceOf(rank) < 0) continue;
      auto& stream = made_.streams[{rank, communicator.queue}];
      if (stream == nullptr) {
        stream = nccl->NewStream(absl::StrCat("r", rank.value(), " queue ", communicator.queue.value()));
      }
      ASSIGN_OR_RETURN(Greeting greeting, GreetingOf(rank, i));
      nccl->Issue(stream.get(), made_.plan.NumberAt(rank, i), greeting.legs);
      greeting.done = stream->Record();
      greetings_.push_back(std::move(greeting));
    }
  }
  for (const Greeting& greeting : greetings_) {
    while (!greeting.done->Done()) {
      RETURN_IF_ERROR(AllSettled().status());
      if (world_->Now() >= deadline_) {
        return absl::DeadlineExceededError(absl::StrCat("NCCL: rank ", greeting.rank.value(),
                                                        " has not met the others: ", NameOf(*greeting.communicator)));
      }
      world_->WaitAny({&greeting.done, 1}, world_->Now() + kTick);
    }
    RETURN_IF_ERROR(AllSettled().status());
    RETURN_IF_ERROR(greeting.done->status());
  }
  return absl::OkStatus();
}

// With whom the rank will exchange anything over the communicator: as its channels go, in a group all with all.
absl::StatusOr<Greeting> Setup::GreetingOf(WorldRank rank, size_t communicator) {
  Greeting greeting{.rank = rank, .communicator = &made_.plan.communicators[communicator]};
  std::set<int> to, from;
  for (const ChannelSpec& spec : specs_.channels) {
    if (made_.plan.of_channel.at(spec.id) != communicator) continue;
    if (spec.sender == rank) to.insert(greeting.communicator->PlaceOf(spec.receiver));
    if (spec.receiver == rank) from.insert(greeting.communicator->PlaceOf(spec.sender));
  }
  for (const GroupSpec& spec : specs_.groups) {
    if (made_.plan.of_group.at(spec.id) != communicator) continue;
    for (const WorldRank member : spec.members) {
      const int place = greeting.communicator->PlaceOf(member);
      if (member != rank) to.insert(place);
      if (member != rank) from.insert(place);
    }
  }
  const int64_t bytes = kGreetingBytes * static_cast<int64_t>(from.size() + 1);
  ASSIGN_OR_RETURN(greeting.memory, devices_.at(rank)->Allocate(bytes, "NCCL's first messages"));
  std::byte* at = greeting.memory.data();
  for (const int peer : to) greeting.legs.push_back({.from = at, .bytes = kGreetingBytes, .peer = peer});
  for (const int peer : from) {
    greeting.legs.push_back({.to = at += kGreetingBytes, .bytes = kGreetingBytes, .peer = peer});
  }
  return greeting;
}

}  // namespace

absl::StatusOr<NcclConnections> ConnectOverNccl(World* world, const NcclHubOptions& options, const Specs& specs,
                                                const std::map<WorldRank, Device*>& devices) {
  return Setup(world, options, specs, devices).Run();
}

}  // namespace sluice::internal
