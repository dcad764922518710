#include "tests/scheduler/brute_force.h"

#include <map>
#include <set>
#include <sstream>
#include <tuple>
#include <vector>

namespace sluice {
namespace {

using Kind = ActionKind;
using SlotId = std::tuple<int, int, int, int>;  // pool, copy, stage, slot
using Token =
    std::tuple<char, int, int, int>;  // 'A' activation into / 'G' gradient into / 'S' stash / 'g', copy, stage, mb

struct Wrong {
  std::string what;
};

struct Pending {
  Action action;
  bool done = false;
  bool started = false;
  std::vector<Pending*> before;  // must be done before it starts
};

class Executor {
 public:
  explicit Executor(const Program& program) : program_(program), lists_(program.ranks.size()) {}

  BruteForceResult Run() {
    try {
      Prepare();
      while (Pass()) {
      }
      for (size_t r = 0; r < lists_.size(); ++r) {
        if (issued_[r] < lists_[r].size()) return {false, true, "an action is never issued"};
        for (const Pending& p : lists_[r]) {
          if (!p.done) return {false, true, ToString(p.action) + " never ends"};
        }
      }
      CheckAllDone();
    } catch (const Wrong& wrong) {
      return {false, false, wrong.what};
    }
    return {true, false, ""};
  }

 private:
  [[noreturn]] void Fail(const Action& a, const std::string& what) const { throw Wrong{ToString(a) + ": " + what}; }
  int Stages() const { return program_.placement.stages(); }
  int RankOf(int stage, int copy) const { return program_.placement.RankOf(StageId(stage), copy).value(); }

  void Prepare() {
    for (size_t r = 0; r < program_.ranks.size(); ++r) {
      for (const Action& a : program_.ranks[r]) {
        lists_[r].push_back({a});
        if (a.queue.value() < 0 || a.queue.index() >= program_.queues.size()) Fail(a, "no queue");
        if (IsCompute(a.kind) || IsTransfer(a.kind)) {
          if (a.stage.value() < 0 || a.stage.value() >= Stages()) Fail(a, "stage");
          if (a.copy < 0 || a.copy >= program_.placement.copies()) Fail(a, "copy");
          if (a.micro_batch.value() < 0 || a.micro_batch.value() >= program_.micro_batches) Fail(a, "micro-batch");
          if (RankOf(a.stage.value(), a.copy) != static_cast<int>(r)) Fail(a, "wrong rank");
        }
        if (a.kind == Kind::kReduceGradient && RankOf(a.stage.value(), a.copy) != static_cast<int>(r)) {
          Fail(a, "wrong rank");
        }
        if ((IsCompute(a.kind) || a.kind == Kind::kOptimizerStep) && a.queue.value() != 0) Fail(a, "compute queue");
        if (IsTransfer(a.kind) && (a.peer.value() < 0 || a.peer.index() >= program_.ranks.size())) Fail(a, "peer");
      }
    }
    issued_.assign(lists_.size(), 0);
    steps_.assign(lists_.size(), 0);
    // Channels match in posting order.
    for (size_t r = 0; r < lists_.size(); ++r) {
      for (Pending& p : lists_[r]) {
        if (p.action.kind == Kind::kSendForward) posts_[{r, p.action.peer.index(), 'F', 's'}].push_back(&p);
        if (p.action.kind == Kind::kSendBackward) posts_[{r, p.action.peer.index(), 'B', 's'}].push_back(&p);
        if (p.action.kind == Kind::kRecvForward) posts_[{p.action.peer.index(), r, 'F', 'r'}].push_back(&p);
        if (p.action.kind == Kind::kRecvBackward) posts_[{p.action.peer.index(), r, 'B', 'r'}].push_back(&p);
      }
    }
    for (auto& [key, sends] : posts_) {
      auto [from, to, kind, side] = key;
      auto& others = posts_[{from, to, kind, side == 's' ? 'r' : 's'}];
      if (others.size() != sends.size()) throw Wrong{"unequal counts"};
      for (size_t k = 0; k < sends.size(); ++k) {
        const Action &a = sends[k]->action, &b = others[k]->action;
        if (a.queue != b.queue) Fail(a, "queues differ");
        if (a.copy != b.copy) Fail(a, "another message");
        const int step = (side == 's') == (kind == 'F') ? 1 : -1;
        // Around the ring of generation a message changes its number where it comes back to the first stage.
        const int rounds = b.stage.value() - a.stage.value() == -step * (Stages() - 1) && program_.groups > 0 ? step : 0;
        if (a.micro_batch.value() + rounds * program_.groups != b.micro_batch.value()) Fail(a, "another message");
        if (rounds == 0 && a.stage.value() + step != b.stage.value()) Fail(a, "another stage's message");
        partner_[sends[k]] = others[k];
      }
    }
    // So does each queue to one peer, whatever kinds it carries.
    std::map<std::tuple<size_t, size_t, int>, std::vector<Pending*>> sends, recvs;
    for (size_t r = 0; r < lists_.size(); ++r) {
      for (Pending& p : lists_[r]) {
        if (IsSend(p.action.kind)) sends[{r, p.action.peer.index(), p.action.queue.value()}].push_back(&p);
        if (IsRecv(p.action.kind)) recvs[{p.action.peer.index(), r, p.action.queue.value()}].push_back(&p);
      }
    }
    for (auto& [key, list] : sends) {
      for (size_t k = 0; k < list.size(); ++k) {
        if (partner_[list[k]] != recvs[key][k]) Fail(list[k]->action, "crossed in its queue");
      }
    }
  }

  bool Pass() {
    bool moved = false;
    for (size_t r = 0; r < lists_.size(); ++r) {
      while (issued_[r] < lists_[r].size() && TryIssue(r, lists_[r][issued_[r]])) {
        ++issued_[r];
        moved = true;
      }
      for (size_t q = 0; q < program_.queues.size(); ++q) {
        for (size_t k = 0; k < issued_[r]; ++k) {
          Pending& p = lists_[r][k];
          if (p.action.queue.index() != q || p.done) continue;
          moved |= TryRun(p);
          break;  // only the head
        }
      }
    }
    return moved;
  }

  static bool AllDone(const std::vector<Pending*>& list) {
    for (const Pending* p : list) {
      if (!p->done) return false;
    }
    return true;
  }

  Pending* FindIssuedRecv(size_t r, const Action& a, Kind kind) {
    for (size_t k = 0; k < issued_[r]; ++k) {
      const Action& b = lists_[r][k].action;
      if (b.kind == kind && b.stage == a.stage && b.copy == a.copy && b.micro_batch == a.micro_batch)
        return &lists_[r][k];
    }
    return nullptr;
  }

  // Slots as the list's order leaves them: what each holds and who used it last.
  struct SlotState {
    bool held = false;
    Token token;
    Pending* writer = nullptr;
    Pending* last_user = nullptr;  // SEND or last consumer
  };

  SlotState& At(const Action& a, Pool pool, int stage, int slot) {
    if (slot < 0 || slot >= program_.PoolSize(pool, StageId(stage), a.copy)) Fail(a, "slot out of range");
    return slots_[{static_cast<int>(pool), a.copy, stage, slot}];
  }
  void Put(Pending& p, Pool pool, int stage, int slot, char letter, int later = 0) {
    SlotState& state = At(p.action, pool, stage, slot);
    if (state.held) Fail(p.action, "overwrites a held slot");
    state.held = true;
    state.token = {letter, p.action.copy, stage, p.action.micro_batch.value() + later};
    state.writer = &p;
  }
  // Finds and gives back what is held for (letter, stage, micro-batch) in a pool; null if it is not there.
  SlotState* Find(const Action& a, Pool pool, int stage, char letter) {
    for (auto& [id, state] : slots_) {
      if (std::get<0>(id) == static_cast<int>(pool) && state.held &&
          state.token == Token{letter, a.copy, stage, a.micro_batch.value()})
        return &state;
    }
    return nullptr;
  }
  void Give(Pending& p, Pool pool, char letter) {
    if (SlotState* state = Find(p.action, pool, p.action.stage.value(), letter)) {
      state->held = false;
      state->last_user = &p;
    }
  }
  void GiveAll(Pending& p) {
    Give(p, Pool::kInput, 'A');
    Give(p, Pool::kOutputGradient, 'G');
    Give(p, Pool::kStash, 'S');
    Give(p, Pool::kGradientStash, 'g');
  }
  void Once(const Action& a) {
    if (!done_.insert({static_cast<int>(a.kind), a.copy, a.stage.value(), a.micro_batch.value()}).second)
      Fail(a, "twice");
  }
  bool Did(const Action& a, Kind kind) const {
    return done_.count({static_cast<int>(kind), a.copy, a.stage.value(), a.micro_batch.value()}) > 0;
  }

  // Blocks like the issuing thread does; on success does the list-order bookkeeping.
  bool TryIssue(size_t r, Pending& p) {
    const Action& a = p.action;
    const int s = a.stage.value();
    const bool forward_only = program_.pass == PassKind::kForwardOnly;
    switch (a.kind) {
      case Kind::kForward: {
        if (steps_[r]) Fail(a, "after the end");
        const int groups = program_.groups, i = a.micro_batch.value();
        const bool takes = s > 0 || (groups > 0 && i >= groups), back = s + 1 == Stages() && groups > 0;
        const bool gives = s + 1 < Stages() || (back && i + groups < program_.micro_batches);
        const int next = back ? 0 : s + 1;
        if (takes && !Find(a, Pool::kInput, s, 'A')) Fail(a, "no input");
        const bool local = gives && RankOf(next, a.copy) == static_cast<int>(r);
        if (!Unblocked(r, a, takes, Kind::kRecvForward, gives && !local, Pool::kOutput)) return false;
        Once(a);
        if (gives && local) Put(p, Pool::kInput, next, a.slot, 'A', back ? groups : 0);
        if (gives && !local) Put(p, Pool::kOutput, s, a.slot, 'o');
        Put(p, Pool::kStash, s, a.stash, 'S');
        if (forward_only) GiveAll(p);
        return true;
      }
      case Kind::kBackward:
      case Kind::kInputGradient: {
        if (steps_[r] || forward_only) Fail(a, "after the end or in a forward-only program");
        if (!Did(a, Kind::kForward)) Fail(a, "no forward");
        if (a.kind == Kind::kBackward && reduced_.count({a.copy, s})) Fail(a, "after its stage's reduction");
        if (Did(a, Kind::kBackward) || Did(a, Kind::kInputGradient)) Fail(a, "twice");
        if (s + 1 < Stages() && !Find(a, Pool::kOutputGradient, s, 'G')) Fail(a, "no gradient");
        const bool local = s > 0 && RankOf(s - 1, a.copy) == static_cast<int>(r);
        if (!Unblocked(r, a, s + 1 < Stages(), Kind::kRecvBackward, s > 0 && !local, Pool::kInputGradient))
          return false;
        Once(a);
        if (s > 0) {
          local ? Put(p, Pool::kOutputGradient, s - 1, a.slot, 'G') : Put(p, Pool::kInputGradient, s, a.slot, 'i');
        }
        Put(p, Pool::kGradientStash, s, a.stash, 'g');
        if (a.kind == Kind::kBackward) GiveAll(p);
        return true;
      }
      case Kind::kWeightGradient:
        if (reduced_.count({a.copy, s})) Fail(a, "after its stage's reduction");
        if (steps_[r] || !Did(a, Kind::kInputGradient)) Fail(a, "no I, or after the end");
        Once(a);
        GiveAll(p);
        return true;
      case Kind::kSendForward:
      case Kind::kSendBackward: {
        const bool f = a.kind == Kind::kSendForward;
        const Pool pool = f ? Pool::kOutput : Pool::kInputGradient;
        SlotState& state = At(a, pool, s, a.slot);
        if (!state.held || state.token != Token{f ? 'o' : 'i', a.copy, s, a.micro_batch.value()}) Fail(a, "not there");
        Once(a);
        p.before.push_back(state.writer);
        state.held = false;
        state.last_user = &p;
        return true;
      }
      case Kind::kRecvForward:
      case Kind::kRecvBackward: {
        const bool f = a.kind == Kind::kRecvForward;
        const Pool pool = f ? Pool::kInput : Pool::kOutputGradient;
        Once(a);
        if (Pending* user = At(a, pool, s, a.slot).last_user) p.before.push_back(user);
        Put(p, pool, s, a.slot, f ? 'A' : 'G');
        return true;
      }
      case Kind::kReduceGradient:
        if (steps_[r]) Fail(a, "after the end");
        if (program_.collectives.at(a.collective).stage != a.stage) Fail(a, "another stage's");
        if (!reduced_.insert({a.copy, s}).second || !collectives_[r].insert(a.collective).second) Fail(a, "twice");
        for (size_t k = 0; k < issued_[r]; ++k) {
          if (IsCompute(lists_[r][k].action.kind)) p.before.push_back(&lists_[r][k]);
        }
        return true;
      case Kind::kCollective: {
        const CollectiveKind kind = program_.collectives.at(a.collective).kind;
        if (kind == CollectiveKind::kStageGradients) Fail(a, "not REDUCE_GRAD");
        if ((steps_[r] == 2) != (kind == CollectiveKind::kParameters)) Fail(a, "on the wrong side of OPTIMIZER_STEP");
        if (kind == CollectiveKind::kTiedGradients && normed_.count(r)) Fail(a, "after the norm");
        if (kind == CollectiveKind::kSummedGradients && !normed_.count(r)) Fail(a, "before the norm");
        if (kind == CollectiveKind::kNorm) normed_.insert(r);
        if (!collectives_[r].insert(a.collective).second) Fail(a, "twice");
        if (steps_[r] == 0) steps_[r] = 1;
        for (size_t k = 0; k < issued_[r]; ++k) {
          const Kind before = lists_[r][k].action.kind;
          if (IsCompute(before) || before == Kind::kOptimizerStep) p.before.push_back(&lists_[r][k]);
        }
        return true;
      }
      case Kind::kOptimizerStep:
        if (steps_[r] == 2) Fail(a, "twice");
        for (size_t k = 0; k < issued_[r]; ++k) {
          if (lists_[r][k].action.collective >= 0 && !lists_[r][k].done) return false;
        }
        steps_[r] = 2;
        return true;
      default:
        return true;
    }
  }

  bool Unblocked(size_t r, const Action& a, bool has_input, Kind recv, bool sends, Pool pool) {
    if (has_input) {
      if (const Pending* p = FindIssuedRecv(r, a, recv); p != nullptr && !p->done) return false;
    }
    if (sends) {
      const Pending* user = At(a, pool, a.stage.value(), a.slot).last_user;
      if (user != nullptr && !user->done) return false;
    }
    return true;
  }

  // `p` is issued and at the head of its queue.
  bool TryRun(Pending& p) {
    if (!p.started) {
      if (!AllDone(p.before)) return false;
      p.started = true;
      if (!IsTransfer(p.action.kind) && p.action.collective < 0) return p.done = true;
    }
    if (IsTransfer(p.action.kind)) {
      if (!partner_[&p]->started) return Note(p);
      return p.done = partner_[&p]->done = true;
    }
    std::vector<Pending*> members;
    for (auto& list : lists_) {
      for (Pending& q : list) {
        if (q.action.collective == p.action.collective) {
          if (!q.started) return Note(p);
          members.push_back(&q);
        }
      }
    }
    if (members.size() != program_.collectives.at(p.action.collective).members.size()) return Note(p);
    for (Pending* q : members) q->done = true;
    return true;
  }
  // Starting counts as a move, once.
  bool Note(const Pending& p) { return noted_.insert(&p).second; }

  void CheckAllDone() {
    for (int i = 0; i < program_.micro_batches; ++i) {
      const int copy = i * program_.placement.copies() / program_.micro_batches;
      for (int s = 0; s < Stages(); ++s) {
        const Action a{.copy = static_cast<int16_t>(copy), .stage = StageId(s), .micro_batch = MicroBatch(i)};
        if (!Did(a, Kind::kForward)) throw Wrong{"a forward is missing"};
        if (program_.pass == PassKind::kForwardOnly) continue;
        if (Did(a, Kind::kBackward) == Did(a, Kind::kWeightGradient)) throw Wrong{"a backward is missing"};
      }
    }
    const int copies = program_.placement.copies();
    const bool reduces = copies > 1 || program_.replicas > 1;
    if (program_.pass == PassKind::kTraining && reduces && reduced_.size() != static_cast<size_t>(copies * Stages())) {
      throw Wrong{"a stage is not reduced"};
    }
    std::map<int, int> gathers;
    for (const Collective& collective : program_.collectives) {
      gathers[collective.stage.value()] += collective.kind == CollectiveKind::kSummedGradients ||
                                           collective.kind == CollectiveKind::kParameters;
    }
    for (int s = 0; s < Stages(); ++s) {
      const bool trains = program_.pass == PassKind::kTraining;
      if (gathers[s] != (trains && reduces ? 1 : 0)) throw Wrong{"a stage is not gathered once"};
    }
    for (const auto& [id, state] : slots_) {
      if (state.held) throw Wrong{"a slot is still held"};
    }
    for (size_t r = 0; r < steps_.size(); ++r) {
      if (program_.pass == PassKind::kTraining && steps_[r] != 2) throw Wrong{"no optimizer step"};
      if (program_.pass == PassKind::kForwardOnly && steps_[r] == 2) throw Wrong{"an optimizer step"};
      for (size_t c = 0; c < program_.collectives.size(); ++c) {
        bool member = false;
        for (PipelineRank rank : program_.collectives[c].members) member |= rank.index() == r;
        if (member != (collectives_[r].count(static_cast<int>(c)) > 0)) throw Wrong{"collective members"};
      }
    }
  }

  const Program& program_;
  std::vector<std::vector<Pending>> lists_;
  std::vector<size_t> issued_;
  std::vector<int> steps_;  // 1: a collective was issued, 2: the optimizer step
  std::map<size_t, std::set<int>> collectives_;
  std::set<size_t> normed_;  // ranks whose norm was issued
  std::set<std::pair<int, int>> reduced_;  // (copy, stage)
  std::map<std::tuple<size_t, size_t, char, char>, std::vector<Pending*>> posts_;
  std::map<const Pending*, Pending*> partner_;
  std::map<SlotId, SlotState> slots_;
  std::set<std::tuple<int, int, int, int>> done_;
  std::set<const Pending*> noted_;
};

}  // namespace

BruteForceResult BruteForceExecute(const Program& program) { return Executor(program).Run(); }

}  // namespace sluice
