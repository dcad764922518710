#include "runtime/trainer/work_messages.h"

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {
namespace {

void SpanToProto(const Span& span, proto::Span* to) {
  const Action& action = span.action;
  to->set_pipeline_rank(span.rank.value());
  to->set_begin_ns(span.begin_ns);
  to->set_end_ns(span.end_ns);
  to->set_bytes(span.bytes);
  to->set_kind(static_cast<int>(action.kind));
  to->set_flags(action.flags);
  to->set_copy(action.copy);
  to->set_stage(action.stage.value());
  to->set_micro_batch(action.micro_batch.value());
  to->set_peer(action.peer.value());
  to->set_queue(action.queue.value());
  to->set_slot(action.slot);
  to->set_stash(action.stash);
  to->set_collective(action.collective);
}

absl::StatusOr<Span> SpanFromProto(const proto::Span& from, Nanoseconds clock_offset, const RankGrid& grid) {
  if (from.kind() < 0 || from.kind() >= kActionKinds || from.pipeline_rank() < 0 || from.pipeline_rank() >= grid.pp()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a span of action kind ", from.kind(), " on pipeline rank ", from.pipeline_rank()));
  }
  return Span{.rank = PipelineRank(from.pipeline_rank()),
              .action = {.kind = static_cast<ActionKind>(from.kind()),
                         .flags = static_cast<uint8_t>(from.flags()),
                         .copy = static_cast<int16_t>(from.copy()),
                         .stage = StageId(from.stage()),
                         .micro_batch = MicroBatch(from.micro_batch()),
                         .peer = PipelineRank(from.peer()),
                         .queue = QueueId(from.queue()),
                         .slot = from.slot(),
                         .stash = from.stash(),
                         .collective = from.collective()},
              .begin_ns = from.begin_ns() + clock_offset,
              .end_ns = from.end_ns() + clock_offset,
              .bytes = from.bytes()};
}

}  // namespace

void AddOutcomes(const std::vector<RankOutcome>& ranks, proto::Answer* answer) {
  for (const RankOutcome& rank : ranks) {
    proto::RankOutcome* to = answer->add_ranks();
    to->set_rank(rank.rank.value());
    to->mutable_losses()->Add(rank.losses.begin(), rank.losses.end());
    for (const float field : {rank.control.norm, rank.control.scale, rank.control.skip}) to->add_control(field);
    for (const Span& span : rank.spans) SpanToProto(span, to->add_spans());
    to->set_planned_bytes(rank.memory.planned_bytes);
    to->set_peak_bytes(rank.memory.peak_bytes);
    to->set_allocations(rank.memory.allocations);
  }
}

void AddHashes(const std::vector<TensorHash>& hashes, proto::Answer* answer) {
  for (const TensorHash& hash : hashes) {
    proto::TensorHash* to = answer->add_hashes();
    to->set_rank(hash.rank.value());
    to->set_tensor(hash.tensor);
    to->set_hash(hash.hash);
  }
}

absl::StatusOr<std::vector<RankOutcome>> OutcomesOf(const proto::Answer& answer, const RankGrid& grid) {
  std::vector<RankOutcome> outcomes;
  for (const proto::RankOutcome& from : answer.ranks()) {
    if (from.rank() < 0 || from.rank() >= grid.ranks() || from.control_size() != 3) {
      return absl::InvalidArgumentError(absl::StrCat("an outcome of rank ", from.rank(), " with ", from.control_size(),
                                                     " numbers of the optimizer's decision"));
    }
    RankOutcome& outcome = outcomes.emplace_back();
    outcome.rank = WorldRank(from.rank());
    outcome.losses.assign(from.losses().begin(), from.losses().end());
    outcome.control = {.norm = from.control(0), .scale = from.control(1), .skip = from.control(2)};
    for (const proto::Span& span : from.spans()) {
      ASSIGN_OR_RETURN(const Span there, SpanFromProto(span, answer.clock_offset_ns(), grid));
      outcome.spans.push_back(there);
    }
    outcome.memory = {.planned_bytes = from.planned_bytes(),
                      .peak_bytes = from.peak_bytes(),
                      .allocations = from.allocations()};
  }
  return outcomes;
}

absl::StatusOr<std::vector<TensorHash>> HashesOf(const proto::Answer& answer, const RankGrid& grid) {
  std::vector<TensorHash> hashes;
  for (const proto::TensorHash& from : answer.hashes()) {
    if (from.rank() < 0 || from.rank() >= grid.ranks()) {
      return absl::InvalidArgumentError(absl::StrCat("a hash of rank ", from.rank()));
    }
    hashes.push_back({WorldRank(from.rank()), from.tensor(), from.hash()});
  }
  return hashes;
}

void AddSaved(const absl::StatusOr<SavedShards>& saved, proto::Answer* answer) {
  proto::Saved& message = *answer->mutable_saved();
  if (!saved.ok()) return message.set_error(std::string(saved.status().message()));
  message.mutable_shards()->Add(saved->begin(), saved->end());
}

absl::StatusOr<SavedShards> SavedOf(const proto::Saved& saved) {
  if (!saved.error().empty()) return absl::UnknownError(saved.error());
  return SavedShards(saved.shards().begin(), saved.shards().end());
}

}  // namespace sluice
