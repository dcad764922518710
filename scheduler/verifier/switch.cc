#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "scheduler/verifier.h"

namespace sluice {
namespace {

absl::Status CheckRank(size_t rank, const std::vector<Action>& right, const std::vector<Action>& wrong) {
  for (size_t k = 0;; ++k) {
    if (k == right.size() || k == wrong.size()) {
      return absl::FailedPreconditionError(absl::StrCat("rank ", rank, " has no POST_VALIDATION"));
    }
    Action begun = wrong[k];
    begun.flags &= ~kDiscarded;
    if (begun != right[k]) {
      return absl::FailedPreconditionError(absl::StrCat("rank ", rank, ", entry ", k, ": ", ToString(right[k]),
                                                        " when the guess is right, but ", ToString(wrong[k]),
                                                        " when it is wrong, which is not known by then"));
    }
    if (right[k].kind == ActionKind::kPostValidation) return absl::OkStatus();
  }
}

}  // namespace

absl::Status VerifySwitch(const Program& guess_right, const Program& guess_wrong) {
  if (guess_right.queues != guess_wrong.queues || guess_right.pools != guess_wrong.pools ||
      guess_right.placement != guess_wrong.placement || guess_right.ranks.size() != guess_wrong.ranks.size()) {
    return absl::FailedPreconditionError(
        "the programs of a right and a wrong guess differ in placement, queues or pools of slots");
  }
  for (size_t r = 0; r < guess_right.ranks.size(); ++r) {
    if (absl::Status status = CheckRank(r, guess_right.ranks[r], guess_wrong.ranks[r]); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace sluice
