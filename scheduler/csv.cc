#include "scheduler/csv.h"

#include <algorithm>
#include <cctype>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr ActionKind kCsvKinds[] = {ActionKind::kForward,        ActionKind::kBackward,      ActionKind::kInputGradient,
                                    ActionKind::kWeightGradient, ActionKind::kSendForward,   ActionKind::kRecvForward,
                                    ActionKind::kSendBackward,   ActionKind::kRecvBackward,  ActionKind::kUnshard,
                                    ActionKind::kReshard,        ActionKind::kReduceGradient};
constexpr char kByteOrderMark[] = "\xef\xbb\xbf";
constexpr char kOverlap[] = "OVERLAP_F_B";
constexpr int32_t kNumberMax = 1 << 30;

class CsvReader {
 public:
  CsvReader(absl::string_view text, absl::string_view file) : text_(text), file_(file) {}

  absl::StatusOr<Schedule> Read() {
    if (text_.substr(0, sizeof(kByteOrderMark) - 1) == kByteOrderMark) at_ = sizeof(kByteOrderMark) - 1;
    for (; at_ < text_.size(); ++line_) {
      schedule_.ranks.emplace_back();
      line_begin_ = line_ == 1 ? 0 : at_;
      RETURN_IF_ERROR(ReadLine());
    }
    while (!schedule_.ranks.empty() && schedule_.ranks.back().empty()) schedule_.ranks.pop_back();
    SplitOlderBackwards();
    RETURN_IF_ERROR(Derive());
    return std::move(schedule_);
  }

 private:
  template <class... Words>
  absl::Status Error(size_t where, const Words&... words) const {
    return absl::InvalidArgumentError(absl::StrCat(file_, ":", line_, ":", where - line_begin_ + 1, ": ", words...));
  }
  absl::Status Expected(absl::string_view what) const {
    if (AtEnd()) return Error(at_, "expected ", what, ", found the end of the line");
    return Error(at_, "expected ", what, ", found '", text_.substr(at_, 1), "'");
  }
  bool AtEnd() const { return at_ == text_.size() || text_[at_] == '\n' || text_[at_] == '\r'; }
  char Peek() const { return AtEnd() ? '\0' : text_[at_]; }
  bool Take(char c) {
    if (Peek() != c) return false;
    ++at_;
    return true;
  }
  void SkipBlanks() {
    while (Peek() == ' ' || Peek() == '\t') ++at_;
  }

  absl::Status ReadLine() {
    do {
      SkipBlanks();
      const bool quoted = Take('"');
      if (quoted) SkipBlanks();
      if (Peek() == '(') {
        RETURN_IF_ERROR(ReadPair());
      } else if (!AtEnd() && Peek() != ',' && Peek() != '"') {
        RETURN_IF_ERROR(ReadAction());
      }
      SkipBlanks();
      if (quoted && !Take('"')) return Expected("'\"'");
      SkipBlanks();
    } while (Take(','));
    if (!AtEnd()) return Expected("',' or the end of the line");
    if (at_ < text_.size() && text_[at_] == '\r') ++at_;
    if (at_ < text_.size() && text_[at_] == '\n') ++at_;
    return absl::OkStatus();
  }

  absl::Status ReadPair() {
    const size_t begin = at_++;
    RETURN_IF_ERROR(ReadAction());
    if (!Take(';')) return Expected("';'");
    RETURN_IF_ERROR(ReadAction());
    if (!Take(')')) return Expected("')'");
    if (text_.substr(at_, sizeof(kOverlap) - 1) != kOverlap) return Expected(kOverlap);
    at_ += sizeof(kOverlap) - 1;
    auto& list = schedule_.ranks.back();
    Action& first = list[list.size() - 2];
    if (first.kind != ActionKind::kForward || list.back().kind != ActionKind::kBackward)
      return Error(begin, "expected a pair of an F and a B");
    first.flags = kOverlapsNext;
    return absl::OkStatus();
  }

  absl::Status ReadNumber(absl::string_view what, int32_t& number) {
    if (!std::isdigit(static_cast<unsigned char>(Peek()))) return Expected(what);
    const size_t begin = at_;
    number = 0;
    for (; std::isdigit(static_cast<unsigned char>(Peek())); ++at_) {
      number = number * 10 + (text_[at_] - '0');
      if (number > kNumberMax / 10) return Error(begin, "the number is too large");
    }
    return absl::OkStatus();
  }

  absl::Status ReadKind(ActionKind& kind) {
    const size_t begin = at_;
    while (std::isupper(static_cast<unsigned char>(Peek())) || Peek() == '_') ++at_;
    const absl::string_view letters = text_.substr(begin, at_ - begin);
    for (ActionKind candidate : kCsvKinds) {
      kind = candidate;
      if (letters == ActionKindName(candidate)) return absl::OkStatus();
    }
    if (letters == "BW") {
      kind = ActionKind::kBackward;
      return absl::OkStatus();
    }
    return Error(begin, "expected F, B, I, W, SEND_F, RECV_F, SEND_B, RECV_B, UNSHARD, RESHARD or REDUCE_GRAD, found '",
                 letters.empty() ? text_.substr(at_, 1) : letters, "'");
  }

  absl::Status ReadAction() {
    const size_t begin = at_;
    Action action;
    int32_t number = 0;
    RETURN_IF_ERROR(ReadNumber("the number of a stage", number));
    action.stage = StageId(number);
    RETURN_IF_ERROR(ReadKind(action.kind));
    if (IsCompute(action.kind) || IsTransfer(action.kind) || std::isdigit(static_cast<unsigned char>(Peek()))) {
      RETURN_IF_ERROR(ReadNumber("the number of a micro-batch", number));
      action.micro_batch = MicroBatch(number);
    }
    if (Take('@')) {
      RETURN_IF_ERROR(ReadNumber("the number of a copy", number));
      if (number > 1) return Error(begin, "expected copy 0 or 1, found ", number);
      action.copy = static_cast<int16_t>(number);
    }
    ++actions_;
    stages_ = std::max(stages_, action.stage.value() + 1);
    copies_ = std::max<int>(copies_, action.copy + 1);
    if (IsCompute(action.kind)) {
      micro_batches_ = std::max(micro_batches_, action.micro_batch.value() + 1);
      if (action.kind != ActionKind::kForward) schedule_.pass = PassKind::kTraining;
    }
    schedule_.ranks.back().push_back(action);
    return absl::OkStatus();
  }

  // A B whose W stands in the file, and whose I doesn't, is what older files call the I.
  void SplitOlderBackwards() {
    if (Crowded()) return;
    enum : uint8_t { kHasInput = 1, kHasWeight = 2 };
    std::vector<uint8_t> seen;
    const auto cell = [&](const Action& a) -> uint8_t& {
      return seen[static_cast<size_t>(a.stage.value()) * micro_batches_ + a.micro_batch.index()];
    };
    for (bool mark : {true, false}) {
      if (mark) seen.assign(static_cast<size_t>(stages_) * micro_batches_, 0);
      for (auto& list : schedule_.ranks) {
        for (Action& a : list) {
          if (mark && a.kind == ActionKind::kInputGradient) cell(a) |= kHasInput;
          if (mark && a.kind == ActionKind::kWeightGradient) cell(a) |= kHasWeight;
          if (!mark && a.kind == ActionKind::kBackward && cell(a) == kHasWeight) a.kind = ActionKind::kInputGradient;
        }
      }
    }
  }

  // Whether there are too few actions for a forward pass of each micro-batch through each stage.
  bool Crowded() const { return int64_t{stages_} * std::max(copies_, micro_batches_) > actions_; }

  // Placement and counts, from where the actions stand.
  absl::Status Derive() {
    const auto error = [&](auto... words) { return absl::InvalidArgumentError(absl::StrCat(file_, ": ", words...)); };
    if (micro_batches_ == 0) return error("expected a line of actions for each rank, found none");
    if (Crowded())
      return error(actions_, " actions can't be all of ", stages_, " stages and ", micro_batches_, " micro-batches");
    std::vector<PipelineRank> map(static_cast<size_t>(stages_) * copies_);
    for (size_t r = 0; r < schedule_.ranks.size(); ++r) {
      if (schedule_.ranks[r].empty()) return error("line ", r + 1, " has no action; each line is a rank");
      for (const Action& a : schedule_.ranks[r]) {
        PipelineRank& rank = map[static_cast<size_t>(a.copy) * stages_ + a.stage.index()];
        if (rank.valid() && rank.index() != r)
          return error("stage ", a.stage.value(), " is on line ", rank.value() + 1, " and, with ", ToString(a),
                       ", on line ", r + 1);
        rank = PipelineRank(static_cast<int>(r));
      }
    }
    for (size_t k = 0; k < map.size(); ++k) {
      if (!map[k].valid()) return error("stage ", k % stages_, " of copy ", k / stages_, " has no action");
    }
    schedule_.name = std::string(file_);
    schedule_.micro_batches = micro_batches_;
    schedule_.placement = Placement(static_cast<int>(schedule_.ranks.size()), stages_, copies_, std::move(map));
    return absl::OkStatus();
  }

  const absl::string_view text_, file_;
  size_t at_ = 0, line_begin_ = 0;
  int line_ = 1;
  int64_t actions_ = 0;
  int stages_ = 0, micro_batches_ = 0, copies_ = 1;
  Schedule schedule_{.pass = PassKind::kForwardOnly};
};

}  // namespace

absl::StatusOr<Schedule> ReadCsv(absl::string_view text, absl::string_view file) {
  return CsvReader(text, file).Read();
}

std::string WriteCsv(const std::vector<std::vector<Action>>& ranks) {
  std::string text;
  for (const auto& list : ranks) {
    const char* separator = "";
    bool second = false;
    for (const Action& a : list) {
      if (a.kind >= ActionKind::kCollective) continue;
      const bool first = a.flags & kOverlapsNext;
      absl::StrAppend(&text, second ? ";" : separator, first ? "(" : "", ToString(a), second ? ")" : "",
                      second ? kOverlap : "");
      second = first;
      separator = ",";
    }
    text += '\n';
  }
  return text;
}

}  // namespace sluice
