#include "runtime/control/roll_call.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {
namespace {

// Enough of a hash to tell two apart, and of a version to be read.
constexpr size_t kShownBytes = 12;

std::string Shown(const std::string* value) {
  if (value == nullptr) return "not stated";
  return value->size() <= kShownBytes ? *value : absl::StrCat(value->substr(0, kShownBytes), "...");
}

const std::string* ValueOf(const std::vector<Fingerprint>& fingerprints, const std::string& name) {
  for (const Fingerprint& fingerprint : fingerprints) {
    if (fingerprint.name == name) return &fingerprint.value;
  }
  return nullptr;
}

std::string NameOf(const ProcessIdentity& who) { return ProcessName(who.process, who.host, who.ranks); }

}  // namespace

RollCall::RollCall(Options options)
    : options_(std::move(options)), entries_(options_.processes), process_of_(options_.world_size, -1) {}

absl::Status RollCall::Check(const ProcessIdentity& who) const {
  if (who.process < 0 || who.process >= options_.processes) {
    return absl::InvalidArgumentError(absl::StrCat(NameOf(who), " can't join: the job has processes 0 to ",
                                                   options_.processes - 1, "; start it with as many as process 0"));
  }
  const Entry& entry = entries_[who.process];
  if (entry.joined) {
    return absl::AlreadyExistsError(absl::StrCat(
        NameOf(who), " can't join: ", name(who.process), ", process id ", entry.who.process_id, ", has ",
        all_joined() ? "long joined, and the job runs" : "joined", "; give each process a number of its own"));
  }
  if (who.process == 0 && who.instance != options_.instance) {
    return absl::AlreadyExistsError(absl::StrCat(
        NameOf(who), " can't join: the coordinator is process 0 itself; give each process a number of its own"));
  }
  if (who.ranks.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("process ", who.process, " (host ", who.host, ") has no ranks"));
  }
  if (std::set<WorldRank>(who.ranks.begin(), who.ranks.end()).size() != who.ranks.size()) {
    return absl::InvalidArgumentError(absl::StrCat(NameOf(who), " names a rank twice"));
  }
  for (WorldRank rank : who.ranks) RETURN_IF_ERROR(CheckRank(rank, who));
  return absl::OkStatus();
}

absl::Status RollCall::CheckRank(WorldRank rank, const ProcessIdentity& who) const {
  if (rank.value() < 0 || rank.value() >= options_.world_size) {
    return absl::InvalidArgumentError(absl::StrCat(NameOf(who), " can't join: the job has ranks 0 to ",
                                                   options_.world_size - 1, ", and not ", rank.value()));
  }
  const int holder = process_of_[rank.index()];
  if (holder < 0) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat(NameOf(who), " can't join: rank ", rank.value(), " is at ", name(holder),
                                               "; each rank belongs to one process"));
}

absl::Status RollCall::Agrees(const ProcessIdentity& who) const {
  std::vector<Fingerprint> all = options_.fingerprints;
  all.insert(all.end(), who.fingerprints.begin(), who.fingerprints.end());
  for (const Fingerprint& one : all) {
    const std::string* ours = ValueOf(options_.fingerprints, one.name);
    const std::string* theirs = ValueOf(who.fingerprints, one.name);
    if (ours != nullptr && theirs != nullptr && *ours == *theirs) continue;
    return absl::FailedPreconditionError(absl::StrCat(NameOf(who), " differs from process 0 in ", one.name, ": ",
                                                      Shown(theirs), " there, ", Shown(ours),
                                                      " at process 0; start all processes alike"));
  }
  return absl::OkStatus();
}

void RollCall::Join(const ProcessIdentity& who, ConnectionId connection) {
  entries_[who.process] = {.joined = true, .connection = connection, .who = who};
  for (WorldRank rank : who.ranks) process_of_[rank.index()] = who.process;
  ++joined_;
}

void RollCall::Refuse(const ProcessIdentity& who, const absl::Status& why) {
  if (who.process < 0 || who.process >= options_.processes || entries_[who.process].joined) return;
  entries_[who.process].refused = std::string(why.message());
}

void RollCall::Leave(int process) {
  entries_[process].left = true;
  ++left_;
}

std::string RollCall::name(int process) const { return NameOf(entries_[process].who); }

std::string RollCall::Missing() const {
  std::vector<int> missing;
  std::string refusals;
  for (int process = 0; process < options_.processes; ++process) {
    if (entries_[process].joined) continue;
    missing.push_back(process);
    if (!entries_[process].refused.empty()) absl::StrAppend(&refusals, "; refused: ", entries_[process].refused);
  }
  return absl::StrCat(missing.size() == 1 ? "process " : "processes ", NumberRanges(missing), " of ",
                      options_.processes, missing.size() == 1 ? " has" : " have", " not joined", refusals);
}

absl::Status RollCall::CheckRanks() const {
  std::vector<int> missing;
  for (int rank = 0; rank < options_.world_size; ++rank) {
    if (process_of_[rank] < 0) missing.push_back(rank);
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("all ", options_.processes,
                                                    " processes have joined, and none hosts ",
                                                    missing.size() == 1 ? "rank " : "ranks ", NumberRanges(missing)));
}

}  // namespace sluice
