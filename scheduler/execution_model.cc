#include "scheduler/execution_model.h"

#include <algorithm>
#include <utility>

namespace sluice {
namespace {

class ModelBuilder {
 public:
  explicit ModelBuilder(const Program& program) : program_(program) {
    cells_ = program.pools.size() * program.micro_batches;
    const size_t keys = program.validation == Validation::kGuessWrong ? 2 * cells_ : cells_;
    for (auto* table : {&send_forward_, &recv_forward_, &send_backward_, &recv_backward_}) table->assign(keys, -1);
    for (auto* table : {&send_norm_, &recv_norm_, &send_validation_, &recv_validation_}) {
      table->assign(program.ranks.size(), -1);
    }
    for (const PoolSizes& sizes : program.pools) {
      for (int32_t size : sizes) {
        slot_offsets_.push_back(slots_.size());
        slots_.resize(slots_.size() + size);
      }
    }
  }

  ExecutionModel Build() {
    model_.waits.resize(program_.ranks.size());
    for (size_t r = 0; r < program_.ranks.size(); ++r) WalkRank(r);
    for (size_t r = 0; r < program_.ranks.size(); ++r) FindPartners(r);
    return std::move(model_);
  }

 private:
  // Last positions that touched a slot.
  struct SlotUse {
    int32_t writer = -1;
    int32_t reader = -1;  // SEND, or the last consumer
  };

  // What is discarded comes a second time, and has places of its own.
  size_t Key(const Action& a) const { return Key(a, {a.stage, a.micro_batch}); }
  // Of another stage, in the action's copy of the model.
  size_t Key(const Action& a, const StageItem& item) const {
    return program_.placement.Index(item.stage, a.copy) * program_.micro_batches + item.micro_batch.index() +
           (a.flags & kDiscarded ? cells_ : 0);
  }
  SlotUse& Slot(Pool pool, const Action& a, int32_t slot) {
    return slots_[slot_offsets_[program_.placement.Index(a.stage, a.copy) * kPoolCount + static_cast<size_t>(pool)] +
                  slot];
  }
  bool Remote(const Action& a, int neighbour) const {
    if (neighbour < 0 || neighbour >= program_.placement.stages()) return false;
    return program_.placement.RankOf(StageId(neighbour), a.copy) != program_.placement.RankOf(a.stage, a.copy);
  }

  void WalkRank(size_t r) {
    const auto& actions = program_.ranks[r];
    auto& waits = model_.waits[r];
    waits.resize(actions.size());
    last_compute_ = last_collective_ = last_norm_ = -1;
    rank_ = r;
    for (int32_t k = 0; k < static_cast<int32_t>(actions.size()); ++k) {
      Visit(actions, k, waits[k]);
    }
  }

  void Visit(const std::vector<Action>& actions, int32_t k, Waits& waits) {
    const Action& a = actions[k];
    if (IsCompute(a.kind)) last_compute_ = k;
    switch (a.kind) {
      case ActionKind::kForward:
        waits.issue_after_input = recv_forward_[Key(a)];
        if (const auto next = program_.path().Next(a.stage, a.micro_batch); next && Remote(a, next->stage.value())) {
          waits.issue_after_slot = Write(Slot(Pool::kOutput, a, a.slot), k);
        }
        if (program_.pass == PassKind::kForwardOnly || (a.flags & kDiscarded)) {
          Consume(actions, Pool::kInput, recv_forward_, a, k);
        }
        break;
      case ActionKind::kBackward:
      case ActionKind::kInputGradient:
        waits.issue_after_input = recv_backward_[Key(a)];
        if (Remote(a, a.stage.value() - 1)) waits.issue_after_slot = Write(Slot(Pool::kInputGradient, a, a.slot), k);
        if (a.kind == ActionKind::kInputGradient) break;
        [[fallthrough]];
      case ActionKind::kWeightGradient:
        Consume(actions, Pool::kInput, recv_forward_, a, k);
        Consume(actions, Pool::kOutputGradient, recv_backward_, a, k);
        break;
      case ActionKind::kSendForward:
        waits.start_after = Send(Slot(Pool::kOutput, a, a.slot), send_forward_, a, k);
        break;
      case ActionKind::kSendBackward:
        waits.start_after = Send(Slot(Pool::kInputGradient, a, a.slot), send_backward_, a, k);
        break;
      case ActionKind::kRecvForward:
        waits.start_after = Receive(Slot(Pool::kInput, a, a.slot), recv_forward_, a, k);
        break;
      case ActionKind::kRecvBackward:
        waits.start_after = Receive(Slot(Pool::kOutputGradient, a, a.slot), recv_backward_, a, k);
        break;
      case ActionKind::kReduceGradient:
        if (!IsCollective(a)) break;
        [[fallthrough]];
      case ActionKind::kCollective:
        waits.start_after = last_compute_;
        last_collective_ = k;
        break;
      case ActionKind::kOptimizerStep:
        waits.issue_after_input = last_collective_;
        last_compute_ = k;
        break;
      case ActionKind::kRecvNorm:
        recv_norm_[rank_] = k;
        break;
      case ActionKind::kNorm:
        waits.issue_after_input = recv_norm_[rank_];
        last_norm_ = k;
        break;
      case ActionKind::kSendNorm:
        waits.start_after = last_norm_;
        send_norm_[rank_] = k;
        break;
      case ActionKind::kRecvValidation:
        recv_validation_[rank_] = k;
        break;
      case ActionKind::kSendValidation:
        waits.issue_after_input = recv_validation_[rank_];
        send_validation_[rank_] = k;
        break;
      case ActionKind::kPostValidation:
        waits.issue_after_input = recv_validation_[rank_];
        break;
      default:
        break;
    }
  }

  static int32_t Write(SlotUse& slot, int32_t k) {
    slot.writer = k;
    return slot.reader;
  }
  int32_t Send(SlotUse& slot, std::vector<int32_t>& sends, const Action& a, int32_t k) {
    sends[Key(a)] = k;
    slot.reader = k;
    return slot.writer;
  }
  // What is discarded has no consumer: the slot is free again when it has come.
  int32_t Receive(SlotUse& slot, std::vector<int32_t>& recvs, const Action& a, int32_t k) {
    recvs[Key(a)] = k;
    const int32_t reader = slot.reader;
    if (a.flags & kDiscarded) slot.reader = k;
    return reader;
  }
  // Marks the slot that a RECV filled for this stage and micro-batch as used up by action k.
  void Consume(const std::vector<Action>& actions, Pool pool, const std::vector<int32_t>& recvs, const Action& a,
               int32_t k) {
    if (const int32_t recv = recvs[Key(a)]; recv >= 0) Slot(pool, a, actions[recv].slot).reader = k;
  }

  void FindPartners(size_t r) {
    const size_t m = program_.micro_batches;
    for (size_t k = 0; k < program_.ranks[r].size(); ++k) {
      const Action& a = program_.ranks[r][k];
      int32_t& partner = model_.waits[r][k].partner;
      switch (a.kind) {
        case ActionKind::kSendForward:
          partner = recv_forward_[Key(a, *program_.path().Next(a.stage, a.micro_batch))];
          break;
        case ActionKind::kRecvForward:
          partner = send_forward_[Key(a, *program_.path().Previous(a.stage, a.micro_batch))];
          break;
        case ActionKind::kSendBackward:
          partner = recv_backward_[Key(a) - m];
          break;
        case ActionKind::kRecvBackward:
          partner = send_backward_[Key(a) + m];
          break;
        case ActionKind::kSendNorm:
          partner = recv_norm_[a.peer.index()];
          break;
        case ActionKind::kRecvNorm:
          partner = send_norm_[a.peer.index()];
          break;
        case ActionKind::kSendValidation:
          partner = recv_validation_[a.peer.index()];
          break;
        case ActionKind::kRecvValidation:
          partner = send_validation_[a.peer.index()];
          break;
        default:
          break;
      }
    }
  }

  const Program& program_;
  ExecutionModel model_;
  std::vector<int32_t> send_forward_, recv_forward_, send_backward_, recv_backward_;  // positions, by Key
  std::vector<size_t> slot_offsets_;                                                  // into slots_, per pool
  std::vector<SlotUse> slots_;
  std::vector<int32_t> send_norm_, recv_norm_, send_validation_, recv_validation_;  // positions, per rank
  size_t cells_ = 0, rank_ = 0;
  int32_t last_compute_ = -1, last_collective_ = -1, last_norm_ = -1;
};

}  // namespace

ExecutionModel BuildExecutionModel(const Program& program) {
  ExecutionModel model = ModelBuilder(program).Build();
  SetQueues(program, QueueView::kAsAssigned, model);
  return model;
}

void SetQueues(const Program& program, QueueView view, ExecutionModel& model) {
  const size_t queues = std::max<size_t>(2, program.queues.size());
  std::vector<int32_t> tails(queues, -1);  // last action of each queue, of one rank at a time
  model.queue_heads.assign(program.ranks.size(), {});
  for (size_t r = 0; r < program.ranks.size(); ++r) {
    const auto& actions = program.ranks[r];
    const auto queue_of = [&](const Action& a) -> size_t {
      if (view == QueueView::kAsAssigned) return a.queue.index();
      return IsTransfer(a.kind) || IsCollective(a);
    };
    for (int32_t k = 0; k < static_cast<int32_t>(actions.size()); ++k) {
      model.waits[r][k].queue_next = -1;
      const int32_t before = std::exchange(tails[queue_of(actions[k])], k);
      (before < 0 ? model.queue_heads[r].emplace_back() : model.waits[r][before].queue_next) = k;
    }
    for (int32_t head : model.queue_heads[r]) tails[queue_of(actions[head])] = -1;
  }
}

void IssueAhead(const Program& program, ExecutionModel& model) {
  for (size_t r = 0; r < program.ranks.size(); ++r) {
    for (size_t k = 0; k < program.ranks[r].size(); ++k) {
      const ActionKind kind = program.ranks[r][k].kind;
      if (!IsCompute(kind) && kind != ActionKind::kOptimizerStep) continue;
      Waits& waits = model.waits[r][k];
      waits.start_after_input = std::exchange(waits.issue_after_input, -1);
      waits.start_after_slot = std::exchange(waits.issue_after_slot, -1);
    }
  }
}

}  // namespace sluice
