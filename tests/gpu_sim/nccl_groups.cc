// Groups of the simulated NCCL: what a rank issues together is one command, and how it finds the others'.
#include <algorithm>
#include <cstring>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/philox.h"
#include "tests/gpu_sim/memory.h"
#include "tests/gpu_sim/nccl_clique.h"

namespace gpu_sim {
namespace {

constexpr int kPollsMax = 3;

struct Group {
  int depth = 0;
  std::vector<NcclOperation> operations;
};
thread_local Group group;  // as NCCL keeps it

int64_t SizeOf(ncclDataType_t type) {
  switch (type) {
    case ncclInt8:
    case ncclUint8:
      return 1;
    case ncclFloat16:
    case ncclBfloat16:
      return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32:
      return 4;
    default:
      return 8;
  }
}

const char* CallOf(const NcclOperation& operation) {
  switch (operation.kind) {
    case NcclOperation::Kind::kSend:
      return "ncclSend";
    case NcclOperation::Kind::kRecv:
      return "ncclRecv";
    case NcclOperation::Kind::kAllGather:
      return "ncclAllGather";
  }
  return "?";
}

// "rank 0 of communicator 2 sends 64 elements of type 2 to rank 1 (stage.cc:12)".
std::string Describe(const NcclOperation& operation) {
  std::string text = NameOf(*operation.comm);
  const bool sends = operation.kind == NcclOperation::Kind::kSend;
  absl::StrAppend(&text,
                  operation.peer < 0 ? " gathers "
                  : sends            ? " sends "
                                     : " receives ",
                  operation.count, " elements of type ", operation.type);
  if (operation.peer >= 0) absl::StrAppend(&text, sends ? " to rank " : " from rank ", operation.peer);
  return absl::StrCat(text, " (", operation.site.file_name(), ":", operation.site.line(), ")");
}

// What the command of one rank does to its memory.
void AddRegions(const NcclOperation& operation, std::vector<LaunchRegion>* reads, std::vector<LaunchRegion>* writes) {
  const auto ranks = static_cast<int64_t>(operation.comm->clique->members.size());
  const int64_t received = operation.kind == NcclOperation::Kind::kAllGather ? ranks : 1;
  if (operation.from != nullptr) reads->push_back({operation.from, operation.bytes(), 1, 0});
  if (operation.to != nullptr) writes->push_back({operation.to, received * operation.bytes(), 1, 0});
}

void Move(void* to, int64_t offset, const void* from, int64_t bytes) {
  std::memmove(StorageOf(to) + offset, StorageOf(from), bytes);
}

}  // namespace

int64_t NcclOperation::bytes() const { return static_cast<int64_t>(count) * SizeOf(type); }

ncclResult_t Nccl::BeginGroup() {
  if (!driver_->options().nccl_groups_left_out) ++group.depth;
  return ncclSuccess;
}

ncclResult_t Nccl::Add(const Caller& caller, NcclOperation operation) {
  std::lock_guard lock(mutex_);
  if (const ncclResult_t result = CheckOperation(caller, operation); result != ncclSuccess) return result;
  if (group.depth > 0) {
    group.operations.push_back(operation);
    return ncclSuccess;
  }
  return StartLaunches(caller, {operation});
}

ncclResult_t Nccl::EndGroup(const Caller& caller) {
  std::lock_guard lock(mutex_);
  if (driver_->options().nccl_groups_left_out) return ncclSuccess;
  if (group.depth == 0) return Refuse(caller, nullptr, ncclInvalidUsage, "no group was begun by this thread");
  if (--group.depth > 0) return ncclSuccess;
  return StartLaunches(caller, std::exchange(group.operations, {}));
}

ncclResult_t Nccl::CheckOperation(const Caller& caller, const NcclOperation& operation) {
  if (const ncclResult_t result = Check(caller, operation.comm); result != ncclSuccess) return result;
  const auto ranks = static_cast<int>(operation.comm->clique->members.size());
  if (operation.peer >= ranks || (operation.peer < 0 && operation.kind != NcclOperation::Kind::kAllGather)) {
    return Refuse(caller, operation.comm, ncclInvalidArgument, absl::StrCat("there is no rank ", operation.peer));
  }
  if (operation.count == 0) return Refuse(caller, operation.comm, ncclInvalidArgument, "a message of no bytes");
  ncclComm* const comm = operation.comm;
  if (comm->stream == nullptr) comm->stream = operation.stream;
  if (comm->stream != operation.stream) {
    return Refuse(caller, comm, ncclInvalidUsage,
                  "a communicator on a second stream, which NCCL makes wait for the first: take one stream for each");
  }
  return ncclSuccess;
}

// A transfer to oneself has both its ends in one group.
ncclResult_t Nccl::CheckGroup(const Caller& caller, const std::vector<NcclOperation>& operations) {
  std::map<const ncclComm*, int> open;
  for (const NcclOperation& operation : operations) {
    if (operation.peer != operation.comm->rank) continue;
    open[operation.comm] += operation.kind == NcclOperation::Kind::kSend ? 1 : -1;
  }
  for (const auto& [comm, ends] : open) {
    if (ends == 0) continue;
    return Refuse(caller, operations[0].comm, ncclInvalidUsage,
                  "a transfer to itself without its other end in the group");
  }
  return ncclSuccess;
}

ncclResult_t Nccl::StartLaunches(const Caller& caller, const std::vector<NcclOperation>& operations) {
  if (const ncclResult_t result = CheckGroup(caller, operations); result != ncclSuccess) return result;
  bool in_progress = false;
  std::vector<ncclComm*> comms;
  for (const NcclOperation& operation : operations) {
    if (std::find(comms.begin(), comms.end(), operation.comm) == comms.end()) comms.push_back(operation.comm);
  }
  for (ncclComm* comm : comms) {
    for (const NcclOperation& operation : operations) {
      if (operation.comm == comm) comm->unissued.push_back(operation);
    }
    comm->in_progress = true;
    comm->polls_left = static_cast<int>(sluice::MixBits(driver_->options().seed ^ ++random_) % kPollsMax);
    if (comm->polls_left == 0) IssuePending(comm);
    in_progress |= comm->in_progress;
  }
  return in_progress ? ncclInProgress : ncclSuccess;
}

void Nccl::IssuePending(ncclComm* comm) {
  if (std::exchange(comm->in_progress, false)) Launch(std::exchange(comm->unissued, {}));
}

// REQUIRES: all of one communicator.
void Nccl::Launch(const std::vector<NcclOperation>& operations) {
  ncclComm* const comm = operations[0].comm;
  std::erase_if(comm->exchanges, [](const ExchangeRef& exchange) { return exchange.use_count() == 1; });
  std::vector<LaunchRegion> reads, writes;
  std::string what;
  Command command = {.latency = driver_->options().device.launch_latency,
                     .duration = driver_->options().device.kernel_time_min,
                     .effect = [] { return cudaSuccess; },
                     .given_up = comm->given_up,
                     .completion = std::make_shared<Completion>()};
  for (const NcclOperation& operation : operations) {
    AddRegions(operation, &reads, &writes);
    command.exchanges.push_back(Meet(operation));
    comm->exchanges.push_back(command.exchanges.back());
    absl::StrAppend(&what, what.empty() ? "" : "; ", Describe(operation));
  }
  const NcclOperation& last = operations.back();
  const Caller caller = {operations.size() == 1 ? CallOf(last) : "ncclGroupEnd", last.site};
  CompletionRef& before = last_[comm->device];
  if (driver_->options().nccl_one_at_a_time && before != nullptr) {
    driver_->IssueForLibrary(caller, last.stream, {}, {}, "one at a time",
                             {.device = comm->device, .waits_for = before});
  }
  before = command.completion;
  command.device = comm->device;
  const cudaError_t error = driver_->IssueForLibrary(caller, last.stream, reads, writes, what, std::move(command));
  if (error != cudaSuccess) SetError(comm, ncclUnhandledCudaError, cudaGetErrorString(error));
}

ExchangeRef Nccl::Meet(const NcclOperation& operation) {
  const ExchangeRef exchange =
      operation.kind == NcclOperation::Kind::kAllGather ? MeetCollective(operation) : MeetTransfer(operation);
  if (health_[operation.comm->device].stalled) driver_->execution()->Break(exchange);
  return exchange;
}

ExchangeRef Nccl::MeetTransfer(const NcclOperation& operation) {
  Clique& clique = *operation.comm->clique;
  const bool sends = operation.kind == NcclOperation::Kind::kSend;
  const std::pair<int, int> edge =
      sends ? std::pair(operation.comm->rank, operation.peer) : std::pair(operation.peer, operation.comm->rank);
  std::deque<Clique::Unmatched>& waiting = clique.transfers[edge];
  if (waiting.empty() || waiting.front().operation.kind == operation.kind) {
    auto exchange = std::make_shared<Exchange>();
    exchange->parts_expected = 2;
    waiting.push_back({operation, exchange});
    return exchange;
  }
  const Clique::Unmatched other = waiting.front();
  waiting.pop_front();
  const NcclOperation &sent = sends ? operation : other.operation, &received = sends ? other.operation : operation;
  if (sent.count != received.count || sent.type != received.type) Mismatch(sent, received, other.exchange);
  SetDuration(other.exchange.get(), clique, {edge.first, edge.second}, sent.bytes());
  other.exchange->effect = [to = received.to, from = sent.from, bytes = sent.bytes()] { Move(to, 0, from, bytes); };
  return other.exchange;
}

ExchangeRef Nccl::MeetCollective(const NcclOperation& operation) {
  Clique& clique = *operation.comm->clique;
  const int64_t number = operation.comm->collectives++;
  Clique::Gathering& gathering = clique.gatherings[number];
  if (gathering.exchange == nullptr) {
    gathering.exchange = std::make_shared<Exchange>();
    gathering.exchange->parts_expected = clique.members.size();
  }
  const ExchangeRef exchange = gathering.exchange;
  gathering.operations.push_back(operation);
  const NcclOperation& first = gathering.operations[0];
  if (first.count != operation.count || first.type != operation.type) Mismatch(first, operation, exchange);
  if (gathering.operations.size() < clique.members.size()) return exchange;
  std::vector<int> ranks;
  for (const NcclOperation& each : gathering.operations) ranks.push_back(each.comm->rank);
  SetDuration(exchange.get(), clique, ranks, operation.bytes() * static_cast<int64_t>(ranks.size() - 1));
  exchange->effect = [operations = std::move(gathering.operations)] {
    for (const NcclOperation& source : operations) {
      for (const NcclOperation& target : operations) {
        Move(target.to, source.comm->rank * source.bytes(), source.from, source.bytes());
      }
    }
  };
  clique.gatherings.erase(number);
  return exchange;
}

void Nccl::Mismatch(const NcclOperation& one, const NcclOperation& other, const ExchangeRef& exchange) {
  const std::string text = absl::StrCat("the ends don't fit together: ", Describe(one), ", but ", Describe(other));
  driver_->AddReport(ReportKind::kMismatch, text);
  driver_->execution()->Break(exchange);
  for (const NcclOperation* end : {&one, &other}) SetError(end->comm, ncclInvalidUsage, text);
}

void Nccl::SetDuration(Exchange* exchange, const Clique& clique, const std::vector<int>& ranks, int64_t bytes) {
  double factor = 1;
  for (const int rank : ranks) {
    factor = std::max(factor, health_[clique.members[rank]->device].factor);
  }
  exchange->duration =
      static_cast<Nanoseconds>(factor * static_cast<double>(CopyTime(driver_->options().device.peer, bytes)));
}

}  // namespace gpu_sim
