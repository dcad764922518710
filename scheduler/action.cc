#include "scheduler/action.h"

#include "absl/strings/str_cat.h"

namespace sluice {

const char* ActionKindName(ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward:
      return "F";
    case ActionKind::kBackward:
      return "B";
    case ActionKind::kInputGradient:
      return "I";
    case ActionKind::kWeightGradient:
      return "W";
    case ActionKind::kSendForward:
      return "SEND_F";
    case ActionKind::kRecvForward:
      return "RECV_F";
    case ActionKind::kSendBackward:
      return "SEND_B";
    case ActionKind::kRecvBackward:
      return "RECV_B";
    case ActionKind::kUnshard:
      return "UNSHARD";
    case ActionKind::kReshard:
      return "RESHARD";
    case ActionKind::kReduceGradient:
      return "REDUCE_GRAD";
    case ActionKind::kCollective:
      return "COLLECTIVE";
    case ActionKind::kOptimizerStep:
      return "OPTIMIZER_STEP";
    case ActionKind::kNorm:
      return "NORM";
    case ActionKind::kSendNorm:
      return "SEND_NORM";
    case ActionKind::kRecvNorm:
      return "RECV_NORM";
    case ActionKind::kSendValidation:
      return "SEND_POST_VALIDATION";
    case ActionKind::kRecvValidation:
      return "RECV_POST_VALIDATION";
    case ActionKind::kPostValidation:
      return "POST_VALIDATION";
  }
  return "?";
}

std::string ToString(const Action& action) {
  if (action.kind == ActionKind::kCollective) return absl::StrCat("COLLECTIVE", action.collective);
  std::string text;
  if (action.stage.valid()) absl::StrAppend(&text, action.stage.value());
  absl::StrAppend(&text, ActionKindName(action.kind));
  if (action.micro_batch.valid()) absl::StrAppend(&text, action.micro_batch.value());
  if (action.copy != 0) absl::StrAppend(&text, "@", action.copy);
  if (action.flags & kDiscarded) text += '~';
  return text;
}

std::ostream& operator<<(std::ostream& out, const Action& action) { return out << ToString(action); }

}  // namespace sluice
