// Pass 3. A queue for every action, by policy.

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "scheduler/lowering.h"

namespace sluice {
namespace {

constexpr QueueId kComputeQueue(0);

// Numbers the directed pairs of ranks in the order in which they first occur.
class EdgeQueues {
 public:
  explicit EdgeQueues(std::vector<Queue>& queues) : queues_(queues) {}

  QueueId Of(PipelineRank from, PipelineRank to) {
    const auto [entry, added] = ids_.try_emplace(std::pair(from.value(), to.value()), QueueId(queues_.size()));
    if (added) queues_.push_back({QueueKind::kCommunication, absl::StrCat(from.value(), ">", to.value())});
    return entry->second;
  }

 private:
  std::vector<Queue>& queues_;
  absl::flat_hash_map<std::pair<int, int>, QueueId> ids_;
};

std::vector<Queue> FixedQueues(QueuePolicy policy) {
  const Queue compute{QueueKind::kCompute, "compute"}, collective{QueueKind::kCollective, "collective"};
  switch (policy) {
    case QueuePolicy::kOnePerRank:
      return {{QueueKind::kCompute, "all"}};
    case QueuePolicy::kOneCommPerRank:
      return {compute, {QueueKind::kCommunication, "communication"}};
    case QueuePolicy::kOnePerDirection:
      return {compute, collective, {QueueKind::kCommunication, "up"}, {QueueKind::kCommunication, "down"}};
    case QueuePolicy::kOnePerEdge:
      return {compute, collective};
  }
  return {};
}

}  // namespace

void AssignQueues(QueuePolicy policy, Program& program) {
  program.queues = FixedQueues(policy);
  EdgeQueues edges(program.queues);
  for (size_t r = 0; r < program.ranks.size(); ++r) {
    for (Action& action : program.ranks[r]) {
      action.queue = kComputeQueue;
      if (policy == QueuePolicy::kOnePerRank) continue;
      if (IsCollective(action)) action.queue = QueueId(1);
      if (!IsTransfer(action.kind)) continue;
      const PipelineRank self(static_cast<int>(r));
      const PipelineRank from = IsSend(action.kind) ? self : action.peer, to = IsSend(action.kind) ? action.peer : self;
      switch (policy) {
        case QueuePolicy::kOnePerRank:
          break;
        case QueuePolicy::kOneCommPerRank:
          action.queue = QueueId(1);
          break;
        case QueuePolicy::kOnePerDirection:
          action.queue = QueueId(from < to ? 2 : 3);
          break;
        case QueuePolicy::kOnePerEdge:
          action.queue = edges.Of(from, to);
          break;
      }
    }
  }
}

}  // namespace sluice
