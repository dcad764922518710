#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "scheduler/verifier/checks.h"

namespace sluice::verifier {
namespace {

// For one sender: the last message into each channel (peer, kind) and through each queue to a peer, and where the peer
// receives it. Messages match in posting order, so the receiving positions must ascend as the sending ones do.
struct LastMessage {
  int32_t send = -1;
  int32_t recv = -1;
};

class SenderCheck {
 public:
  SenderCheck(const Program& program, const ExecutionModel& model, size_t rank)
      : program_(program), model_(model), rank_(rank) {}

  absl::Status Check(int32_t k) {
    const Action& send = program_.ranks[rank_][k];
    const int32_t partner = model_.waits[rank_][k].partner;
    const Action& recv = program_.ranks[send.peer.index()][partner];
    if (send.queue != recv.queue) {
      return absl::FailedPreconditionError(absl::StrCat(ToString(send), " is in queue ", QueueName(send), " on rank ",
                                                        rank_, ", but its other end ", ToString(recv), " is in queue ",
                                                        QueueName(recv), " on rank ", send.peer.value()));
    }
    const int peer = send.peer.value(), kind = static_cast<int>(send.kind);
    if (absl::Status status = CheckAscends({peer, 0, kind}, k, partner); !status.ok()) return status;
    return CheckAscends({peer, 1, send.queue.value()}, k, partner);
  }

 private:
  const std::string& QueueName(const Action& a) const { return program_.queues[a.queue.index()].name; }

  absl::Status CheckAscends(const std::tuple<int, int, int>& channel, int32_t send, int32_t recv) {
    LastMessage& last = last_[channel];
    if (recv < last.recv) {
      const auto& mine = program_.ranks[rank_];
      const int peer = std::get<0>(channel);
      const auto& theirs = program_.ranks[peer];
      return absl::FailedPreconditionError(
          absl::StrCat("crossed messages from rank ", rank_, " to rank ", peer, ": ", ToString(mine[last.send]),
                       " is posted before ", ToString(mine[send]), " (queue ", QueueName(mine[send]), "), but ",
                       ToString(theirs[recv]), " before ", ToString(theirs[last.recv])));
    }
    last = {send, recv};
    return absl::OkStatus();
  }

  const Program& program_;
  const ExecutionModel& model_;
  const size_t rank_;
  absl::flat_hash_map<std::tuple<int, int, int>, LastMessage> last_;
};

absl::Status CheckMessageSizes(const Program& program, const std::vector<StageBytes>& bytes) {
  const Placement& placement = program.placement;
  const auto check = [&](int copy, int from, Pool sent, int to, Pool received) -> absl::Status {
    const int64_t out = bytes[from].slot[static_cast<size_t>(sent)], in = bytes[to].slot[static_cast<size_t>(received)];
    if (placement.RankOf(StageId(from), copy) == placement.RankOf(StageId(to), copy) || out == in) {
      return absl::OkStatus();
    }
    return absl::FailedPreconditionError(absl::StrCat("messages from stage ", from, " to stage ", to, ": ",
                                                      PoolName(sent), " slots have ", out, " bytes, but ",
                                                      PoolName(received), " slots have ", in));
  };
  const int last = placement.stages() - 1;
  if (program.groups > 0) {
    if (auto status = check(0, last, Pool::kOutput, 0, Pool::kInput); !status.ok()) return status;
  }
  for (int copy = 0; copy < placement.copies(); ++copy) {
    for (int s = 0; s + 1 < placement.stages(); ++s) {
      if (auto status = check(copy, s, Pool::kOutput, s + 1, Pool::kInput); !status.ok()) return status;
      if (program.pass == PassKind::kForwardOnly) continue;
      if (auto status = check(copy, s + 1, Pool::kInputGradient, s, Pool::kOutputGradient); !status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckChannels(const Program& program, const ExecutionModel& model, const VerifierOptions& options) {
  for (size_t r = 0; r < program.ranks.size(); ++r) {
    SenderCheck check(program, model, r);
    for (int32_t k = 0; k < static_cast<int32_t>(program.ranks[r].size()); ++k) {
      if (!IsSend(program.ranks[r][k].kind)) continue;
      if (absl::Status status = check.Check(k); !status.ok()) return status;
    }
  }
  return options.stage_bytes.empty() ? absl::OkStatus() : CheckMessageSizes(program, options.stage_bytes);
}

}  // namespace sluice::verifier
