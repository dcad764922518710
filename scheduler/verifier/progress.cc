#include <algorithm>
#include <deque>
#include <optional>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "scheduler/execution_run.h"
#include "scheduler/verifier/checks.h"

namespace sluice::verifier {
namespace {

using Node = ActionPlace;

template <class Run>
class StuckProgram {
 public:
  StuckProgram(const Program& program, const ExecutionModel& model, const Run& run)
      : program_(program), model_(model), run_(run) {
    members_.resize(program.collectives.size());
    queue_before_.resize(program.ranks.size());
    size_t total = 0;
    for (size_t r = 0; r < program.ranks.size(); ++r) {
      offsets_.push_back(total);
      total += program.ranks[r].size();
      queue_before_[r].assign(program.ranks[r].size(), -1);
      for (int32_t k = 0; k < static_cast<int32_t>(program.ranks[r].size()); ++k) {
        if (model.waits[r][k].queue_next >= 0) queue_before_[r][model.waits[r][k].queue_next] = k;
        if (IsCollective(program.ranks[r][k])) {
          members_[program.ranks[r][k].collective].push_back(At(r, k));
        }
      }
    }
    reached_by_.resize(total);
    stamp_.assign(total, 0);
  }

  // Breadth-first from each action that has not started, no deeper than the shortest cycle yet.
  std::vector<Wait> ShortestCycle() {
    std::vector<Wait> best;
    for (size_t r = 0; r < program_.ranks.size(); ++r) {
      for (int32_t k = 0; k < static_cast<int32_t>(program_.ranks[r].size()); ++k) {
        if (Started(At(r, k))) continue;
        std::vector<Wait> cycle = CycleThrough(At(r, k), best.empty() ? SIZE_MAX : best.size() - 1);
        if (!cycle.empty()) best = std::move(cycle);
        if (visits_ > kVisitsMax && !best.empty()) return best;
      }
    }
    return best;
  }

  std::string Describe(const Wait& wait, bool merged) const {
    const auto rank_name = [&](Node node) { return absl::StrCat("rank ", node.rank.value(), "'s ", Name(node)); };
    std::string text = rank_name(wait.from);
    switch (wait.reason) {
      case WaitReason::kQueue:
        absl::StrAppend(&text, " stands behind ", Name(wait.via),
                        merged ? " in issue order" : absl::StrCat(" in queue ", QueueName(wait.from)));
        break;
      case WaitReason::kNeeds:
        absl::StrAppend(&text, " needs ", Name(wait.via), " to have ended");
        break;
      case WaitReason::kIssue: {
        const Node blocked{wait.from.rank, run_.IssuePosition(wait.from.rank.index())};
        if (blocked.position == wait.from.position) {
          absl::StrAppend(&text, " is not issued before ", Name(wait.via), " has ended");
        } else {
          absl::StrAppend(&text, " is not issued, since the issuing thread stands at ", Name(blocked), " until ",
                          Name(wait.via), " has ended");
        }
      }
    }
    if (Id(wait.to) != Id(wait.via)) absl::StrAppend(&text, ", whose other end is ", rank_name(wait.to));
    return text;
  }

 private:
  static constexpr int64_t kVisitsMax = 20'000'000;

  static Node At(size_t rank, int32_t position) { return {PipelineRank(static_cast<int32_t>(rank)), position}; }
  size_t Id(Node node) const { return offsets_[node.rank.index()] + node.position; }
  ActionState State(Node node) const { return run_.State(node.rank.index(), node.position); }
  bool Started(Node node) const { return State(node) >= ActionState::kStarted; }
  const Action& ActionAt(Node node) const { return program_.ranks[node.rank.index()][node.position]; }
  std::string Name(Node node) const { return ToString(ActionAt(node)); }
  const std::string& QueueName(Node node) const { return program_.queues[ActionAt(node).queue.index()].name; }

  // Everything that keeps an action from starting.
  template <class Visit>
  void ForEachWait(Node node, Visit visit) {
    const auto wait_for = [&](int32_t position, WaitReason reason) {
      if (position < 0 || run_.State(node.rank.index(), position) == ActionState::kEnded) return;
      const Node via{node.rank, position};
      if (!Started(via)) visit(Wait{node, via, via, reason, ""});
      ForEachOtherEnd(via, [&](Node other) {
        if (!Started(other)) visit(Wait{node, other, via, reason, ""});
      });
    };
    const Waits& waits = model_.waits[node.rank.index()][node.position];
    wait_for(queue_before_[node.rank.index()][node.position], WaitReason::kQueue);
    wait_for(waits.start_after, WaitReason::kNeeds);
    if (State(node) != ActionState::kWaiting) return;
    const Waits& blocked = model_.waits[node.rank.index()][run_.IssuePosition(node.rank.index())];
    wait_for(blocked.issue_after_input, WaitReason::kIssue);
    wait_for(blocked.issue_after_slot, WaitReason::kIssue);
  }

  template <class Visit>
  void ForEachOtherEnd(Node node, Visit visit) {
    const Action& a = ActionAt(node);
    if (IsTransfer(a.kind)) visit(Node{a.peer, model_.waits[node.rank.index()][node.position].partner});
    if (!IsCollective(a)) return;
    for (Node member : members_[a.collective]) {
      if (member.rank != node.rank) visit(member);
    }
  }

  std::vector<Wait> CycleThrough(Node start, size_t length_max) {
    ++generation_;
    std::deque<std::pair<Node, size_t>> frontier = {{start, 0}};
    while (!frontier.empty()) {
      const auto [node, depth] = frontier.front();
      frontier.pop_front();
      if (depth >= length_max) return {};
      bool closed = false;
      ForEachWait(node, [&](const Wait& wait) {
        ++visits_;
        if (closed || std::exchange(stamp_[Id(wait.to)], generation_) == generation_) return;
        reached_by_[Id(wait.to)] = wait;
        closed = Id(wait.to) == Id(start);
        frontier.emplace_back(wait.to, depth + 1);
      });
      if (closed) return PathTo(start);
    }
    return {};
  }

  std::vector<Wait> PathTo(Node start) const {
    std::vector<Wait> path;
    Node node = start;
    do {
      path.push_back(reached_by_[Id(node)]);
      node = path.back().from;
    } while (Id(node) != Id(start));
    std::reverse(path.begin(), path.end());
    return path;
  }

  const Program& program_;
  const ExecutionModel& model_;
  const Run& run_;
  std::vector<size_t> offsets_;
  std::vector<std::vector<int32_t>> queue_before_;
  std::vector<std::vector<Node>> members_;  // per collective
  std::vector<Wait> reached_by_;
  std::vector<uint32_t> stamp_;
  uint32_t generation_ = 0;
  int64_t visits_ = 0;
};

}  // namespace

bool RunsToItsEnd(const Program& program, const ExecutionModel& model) {
  return ExecutionRun(program, model, Untimed()).Run();
}

std::optional<Deadlock> FindDeadlock(const Program& program, const ExecutionModel& model, QueueView view) {
  ExecutionRun run(program, model, Untimed());
  if (run.Run()) return std::nullopt;
  StuckProgram stuck(program, model, run);
  Deadlock deadlock{.merged = view == QueueView::kMergedCommunication, .circle = stuck.ShortestCycle()};
  for (Wait& wait : deadlock.circle) wait.text = stuck.Describe(wait, deadlock.merged);
  for (size_t r = 0; r < program.ranks.size(); ++r) {
    std::vector<bool>& ended = deadlock.ended.emplace_back();
    for (int32_t k = 0; k < static_cast<int32_t>(program.ranks[r].size()); ++k) {
      ended.push_back(run.State(r, k) == ActionState::kEnded);
    }
  }
  return deadlock;
}

absl::Status CheckProgress(const Program& program, const ExecutionModel& model, QueueView view) {
  const std::optional<Deadlock> deadlock = FindDeadlock(program, model, view);
  return deadlock ? absl::FailedPreconditionError(ToString(*deadlock)) : absl::OkStatus();
}

}  // namespace sluice::verifier

namespace sluice {

std::string ToString(const Deadlock& deadlock) {
  std::set<int> ranks;
  std::vector<std::string> lines;
  for (const Wait& wait : deadlock.circle) {
    ranks.insert({wait.from.rank.value(), wait.via.rank.value(), wait.to.rank.value()});
    lines.push_back(wait.text);
  }
  return absl::StrCat("deadlock",
                      deadlock.merged ? " when all communication of a rank runs in one queue in issue order" : "",
                      ", ranks ", absl::StrJoin(ranks, ", "), " wait in a circle: ", absl::StrJoin(lines, "; "));
}

}  // namespace sluice
