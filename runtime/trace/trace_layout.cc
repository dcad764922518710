#include "runtime/trace/trace_layout.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sluice {
namespace {

constexpr const char* kTrackNames[] = {"compute", "send", "receive", "collectives"};

TrackClass TrackClassOf(ActionKind kind) {
  if (IsSend(kind)) return TrackClass::kSend;
  if (IsRecv(kind)) return TrackClass::kReceive;
  if (IsCompute(kind) || kind == ActionKind::kOptimizerStep || kind == ActionKind::kNorm ||
      kind == ActionKind::kPostValidation) {
    return TrackClass::kCompute;
  }
  return TrackClass::kCollective;
}

// A message between two ranks, the same for both of its ends. What a wrong guess has made useless comes a second time.
using MessageKey = std::tuple<int /*from*/, int /*to*/, ActionKind /*of the send*/, bool /*discarded*/, int /*copy*/,
                              int /*stage*/, int /*micro*/>;

MessageKey MessageOf(const Span& span, int stages) {
  const Action& a = span.action;
  const bool discarded = (a.flags & kDiscarded) != 0;
  if (IsSend(a.kind)) {
    return {span.rank.value(), a.peer.value(), a.kind, discarded, a.copy, a.stage.value(), a.micro_batch.value()};
  }
  // Each RECV stands behind its SEND in ActionKind.
  const auto send = static_cast<ActionKind>(static_cast<int>(a.kind) - 1);
  const int step = send == ActionKind::kSendForward ? stages - 1 : 1;  // back to the stage that sent
  const int sender = a.stage.valid() ? (a.stage.value() + step) % std::max(stages, 1) : -1;
  return {a.peer.value(), span.rank.value(), send, discarded, a.copy, sender, a.micro_batch.value()};
}

std::vector<int32_t> TimeOrder(const std::vector<Span>& spans) {
  std::vector<int32_t> order(spans.size());
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](int32_t i) {
    return std::tuple(spans[i].begin_ns, IsRecv(spans[i].action.kind), spans[i].end_ns, i);
  };
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return key(a) < key(b); });
  return order;
}

std::vector<int32_t> Partners(const Timeline& timeline, const std::vector<int32_t>& order) {
  std::vector<int32_t> partners(timeline.spans.size(), -1);
  absl::flat_hash_map<MessageKey, int32_t> open;  // messages whose other end has not come yet
  for (const int32_t i : order) {
    const Span& span = timeline.spans[i];
    if (!IsTransfer(span.action.kind)) continue;
    const auto [entry, first] = open.try_emplace(MessageOf(span, timeline.stages), i);
    const int32_t other = entry->second;
    if (first || IsSend(timeline.spans[other].action.kind) == IsSend(span.action.kind)) continue;
    open.erase(entry);
    const auto [send, receive] = IsSend(span.action.kind) ? std::pair(i, other) : std::pair(other, i);
    if (timeline.spans[receive].end_ns < timeline.spans[send].begin_ns) continue;
    partners[send] = receive;
    partners[receive] = send;
  }
  return partners;
}

}  // namespace

absl::Status CheckTimeline(const Timeline& timeline) {
  const auto known = [&](PipelineRank rank) { return rank.valid() && rank.value() < timeline.ranks; };
  for (const Span& span : timeline.spans) {
    if (known(span.rank) && span.begin_ns <= span.end_ns) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "the timeline '", timeline.name, "' of ", timeline.ranks, " ranks has the span ", ToString(span.action),
        " on rank ", span.rank.value(), " from ", span.begin_ns, " to ", span.end_ns, " ns"));
  }
  for (const MemorySample& sample : timeline.samples) {
    if (known(sample.rank)) continue;
    return absl::InvalidArgumentError(absl::StrCat("the timeline '", timeline.name, "' of ", timeline.ranks,
                                                   " ranks has a memory sample of rank ", sample.rank.value()));
  }
  return absl::OkStatus();
}

std::vector<std::string> ProcessNames(const Timeline& timeline) {
  std::vector<std::set<int>> stages(timeline.ranks);
  for (const Span& span : timeline.spans) {
    if (IsCompute(span.action.kind)) stages[span.rank.index()].insert(span.action.stage.value());
  }
  std::vector<std::string> names;
  for (int r = 0; r < timeline.ranks; ++r) {
    std::string& name = names.emplace_back(absl::StrCat("rank ", r));
    if (!stages[r].empty()) absl::StrAppend(&name, " (stages ", absl::StrJoin(stages[r], ", "), ")");
  }
  return names;
}

TraceLayout TraceTracks::Lay(const TraceStep& step) {
  const std::vector<Span>& spans = step.timeline.spans;
  TraceLayout layout{.order = TimeOrder(spans), .tracks = std::vector<int32_t>(spans.size())};
  layout.partners = Partners(step.timeline, layout.order);
  for (const int32_t i : layout.order) layout.tracks[i] = TrackOf(step, spans[i]);
  return layout;
}

int TraceTracks::TrackOf(const TraceStep& step, const Span& span) {
  const TrackClass track_class = TrackClassOf(span.action.kind);
  const bool by_queue = track_class == TrackClass::kSend || track_class == TrackClass::kReceive;
  const int queue = by_queue ? span.action.queue.value() : -1;
  std::vector<Lane>& lanes = lanes_[{span.rank.value(), track_class, queue}];
  const int64_t begin_ns = step.begin_ns + span.begin_ns, end_ns = step.begin_ns + span.end_ns;
  for (Lane& lane : lanes) {
    if (lane.end_ns > begin_ns) continue;
    lane.end_ns = end_ns;
    return lane.id;
  }
  const int id = static_cast<int>(tracks_.size()) + 1;
  lanes.push_back({id, end_ns});
  std::string name = kTrackNames[static_cast<size_t>(track_class)];
  if (by_queue && span.action.queue.valid() && span.action.queue.index() < step.timeline.queues.size()) {
    absl::StrAppend(&name, " ", step.timeline.queues[span.action.queue.index()].name);
  }
  if (lanes.size() > 1) absl::StrAppend(&name, " (", lanes.size(), ")");
  tracks_.push_back(
      {id, span.rank, std::move(name),
       (static_cast<int>(track_class) * 1000 + std::max(queue, 0)) * 100 + static_cast<int>(lanes.size())});
  return id;
}

}  // namespace sluice
