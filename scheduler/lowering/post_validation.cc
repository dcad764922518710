// Post-validation of the gradient norm: how its actions come into a program, and the programs beside it.
#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "scheduler/lowering.h"

namespace sluice {
namespace {

bool IsValidation(ActionKind kind) {
  return kind == ActionKind::kSendValidation || kind == ActionKind::kRecvValidation ||
         kind == ActionKind::kPostValidation;
}

using List = std::vector<Action>;

List::const_iterator FindPostValidation(const List& list) {
  const auto at =
      std::find_if(list.begin(), list.end(), [](const Action& a) { return a.kind == ActionKind::kPostValidation; });
  CHECK(at != list.end()) << "a list without POST_VALIDATION";
  return at;
}

// The messages of which one end, or both, stands before POST_VALIDATION.
class BegunMessages {
 public:
  explicit BegunMessages(const Program& program) : micro_batches_(program.micro_batches) {
    marks_.resize(2 * static_cast<size_t>(program.placement.stages()) * micro_batches_);
    for (const List& list : program.ranks) {
      const auto end = FindPostValidation(list);
      for (auto a = list.begin(); a != end; ++a) {
        if (IsStageTransfer(a->kind)) Mark(*a) = true;
      }
    }
  }
  bool Contains(const Action& a) { return IsStageTransfer(a.kind) && Mark(a); }

 private:
  // A border of stages has two kinds of message.
  std::vector<bool>::reference Mark(const Action& a) {
    const size_t backward = IsForwardTransfer(a.kind) ? 0 : 1, border = SourceStage(a).index() - backward;
    return marks_[(2 * border + backward) * micro_batches_ + a.micro_batch.index()];
  }

  const int micro_batches_;
  std::vector<bool> marks_;
};

Action Discarded(Action action) {
  action.flags |= kDiscarded;
  return action;
}

// The list as it was up to POST_VALIDATION; the other ends of what has been begun; then the step from its beginning.
List DiscardAndReplay(const List& list, BegunMessages& begun) {
  List replay;
  const auto validation = FindPostValidation(list);
  for (auto a = list.begin(); a != validation; ++a) replay.push_back(IsValidation(a->kind) ? *a : Discarded(*a));
  replay.push_back(*validation);
  for (auto a = validation; a != list.end(); ++a) {
    if (begun.Contains(*a)) replay.push_back(Discarded(*a));
  }
  std::copy_if(list.begin(), list.end(), std::back_inserter(replay),
               [](const Action& a) { return !IsValidation(a.kind); });
  return replay;
}

}  // namespace

absl::Status CheckPostValidation(const Schedule& schedule, const LoweringOptions& options) {
  const Placement& placement = schedule.placement;
  if (options.replicas > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ", options.replicas, " replicas of schedule '", schedule.name,
                     "' wait for each other's gradients at the end of every step; train one pipeline (layout.dp: 1) or "
                     "leave post-validation off"));
  }
  if (placement.copies() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("schedule '", schedule.name, "' trains ", placement.copies(),
                     " copies of the model, whose ranks wait for each other's gradients at the end of every step; "
                     "choose a schedule with one copy or leave post-validation off"));
  }
  for (const TiedTensor& tied : options.tied_tensors) {
    for (StageId stage : tied.stages) {
      if (placement.RankOf(stage) == placement.RankOf(tied.stages.front())) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("stages ", tied.stages.front().value(), " and ", stage.value(), " share tied tensor ",
                       tied.tensor, " and stand on ranks ", placement.RankOf(tied.stages.front()).value(), " and ",
                       placement.RankOf(stage).value(),
                       ", which therefore wait for each other at the end of every step; untie the "
                       "weights, choose a schedule with both ends of the model on one rank (zb_v) and cuts that leave "
                       "the last of these "
                       "layers to its last stage (layout.cut_before), or leave post-validation off"));
    }
  }
  if (HasTransfers(schedule)) {
    return absl::UnimplementedError(absl::StrCat(
        "schedule '", schedule.name, "' has transfers of its own; give it without them, as compute actions only"));
  }
  return absl::OkStatus();
}

Schedule InsertPostValidation(Schedule schedule) {
  const int p = schedule.placement.ranks(), m = schedule.micro_batches;
  for (int r = 0; r < p; ++r) {
    List& list = schedule.ranks[r];
    const int most = std::min({2 * (p - 1 - r), m - 1, static_cast<int>(list.size())});
    int forwards = 0;
    while (forwards < most && list[forwards].kind == ActionKind::kForward && list[forwards].stage == list[0].stage &&
           !(list[forwards].flags & kOverlapsNext)) {
      ++forwards;
    }
    list.insert(list.begin() + forwards, {.kind = ActionKind::kPostValidation});
  }
  return schedule;
}

void AddPostValidatedEnd(Program& program) {
  const int p = program.placement.ranks();
  for (int r = 0; r < p; ++r) {
    List& list = program.ranks[r];
    // As soon as it keeps no other message waiting, so that the rank before needn't wait.
    const auto last = std::find_if(list.rbegin(), list.rend(), [](const Action& a) { return IsTransfer(a.kind); });
    if (r > 0) list.insert(last.base(), {.kind = ActionKind::kRecvNorm, .peer = PipelineRank(r - 1)});
    list.push_back({.kind = ActionKind::kNorm});
    if (r + 1 < p) list.push_back({.kind = ActionKind::kSendNorm, .peer = PipelineRank(r + 1)});
    list.push_back({.kind = ActionKind::kOptimizerStep});
  }
}

PostValidationPrograms DerivePostValidation(const Program& guess_right) {
  CHECK(guess_right.validation == Validation::kGuessRight);
  PostValidationPrograms programs{guess_right, guess_right, guess_right};
  programs.first_step.name = absl::StrCat(guess_right.name, ", first step");
  programs.first_step.validation = Validation::kNone;
  programs.guess_wrong.name = absl::StrCat(guess_right.name, ", guess wrong");
  programs.guess_wrong.validation = Validation::kGuessWrong;
  programs.settle.name = absl::StrCat(guess_right.name, ", settling");
  programs.settle.pass = PassKind::kValidation;
  programs.settle.micro_batches = 0;
  BegunMessages begun(guess_right);
  for (size_t r = 0; r < guess_right.ranks.size(); ++r) {
    const List& list = guess_right.ranks[r];
    std::erase_if(programs.first_step.ranks[r], [](const Action& a) { return IsValidation(a.kind); });
    std::erase_if(programs.settle.ranks[r], [](const Action& a) { return !IsValidation(a.kind); });
    programs.guess_wrong.ranks[r] = DiscardAndReplay(list, begun);
  }
  return programs;
}

}  // namespace sluice
