#include "runtime/trainer/checkpoint_saver.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/philox.h"
#include "base/status.h"
#include "runtime/checkpoint/manifest.h"
#include "runtime/trace/chart.h"
#include "spdlog/spdlog.h"
#include "stages/graph_io.h"

namespace sluice {
namespace {

constexpr Nanoseconds kMinute = 60 * kSecond;

std::string LayoutText(const LayoutConfig& layout) {
  return absl::StrCat("pp ", layout.pp, ", dp ", layout.dp, ", tp ", layout.tp, layout.zero1 ? ", ZeRO-1" : "");
}

}  // namespace

RunPosition PositionOf(const proto::CheckpointManifest& manifest) {
  return {.step = manifest.step(),
          .updates = manifest.updates(),
          .skipped_steps = manifest.skipped_steps(),
          .nonfinite_in_a_row = manifest.nonfinite_in_a_row(),
          .last_loss = manifest.loss()};
}

RunFacts FactsOf(const proto::CheckpointManifest& manifest) {
  RunFacts facts;
  for (const auto& fact : manifest.fact()) facts.emplace_back(fact.name(), fact.value());
  return facts;
}

CheckpointSaver::CheckpointSaver(World* world, const Plan& plan, RunFacts facts, std::unique_ptr<CheckpointStore> store,
                                 int64_t step)
    : world_(world),
      job_(plan.job),
      facts_(std::move(facts)),
      store_(std::move(store)),
      last_begun_(world->Now()),
      saved_step_(step) {}

absl::StatusOr<std::unique_ptr<CheckpointSaver>> CheckpointSaver::Open(World* world, const Plan& plan, RunFacts facts,
                                                                       int64_t step) {
  const CheckpointConfig& config = plan.job.checkpoint;
  ASSIGN_OR_RETURN(auto store,
                   CheckpointStore::Open(config.folder, {.last = config.keep_last, .every = config.keep_every}));
  RETURN_IF_ERROR(store->CheckBeginsAfter(step));
  return std::unique_ptr<CheckpointSaver>(new CheckpointSaver(world, plan, std::move(facts), std::move(store), step));
}

CheckpointSaver::~CheckpointSaver() {
  if (completing_) CHECK_OK(world_->Wait(completing_));
}

bool CheckpointSaver::DueAfter(int64_t step) const {
  const CheckpointConfig& config = job_.checkpoint;
  if (step >= job_.training.steps) return false;  // SaveLast's
  if (config.every_steps > 0 && step % config.every_steps == 0) return true;
  return config.every_minutes > 0 && !busy() &&
         static_cast<double>(world_->Now() - last_begun_) >= config.every_minutes * kMinute;
}

absl::Status CheckpointSaver::Save(const RunPosition& position, WorkerGroup* workers) {
  Poll(workers);
  if (!busy()) return Begin(position, workers);
  if (skipped_++ == 0) {
    spdlog::warn(
        "the checkpoint of step {} is skipped, as all are until that of step {} is written: save less often "
        "(checkpoint.every_steps), or onto a faster disk",
        position.step, manifest_.step());
  }
  return absl::OkStatus();
}

absl::Status CheckpointSaver::Begin(const RunPosition& position, WorkerGroup* workers) {
  CHECK(!busy()) << "the last one is still being written";
  last_begun_ = world_->Now();
  saved_step_ = position.step;
  skipped_ = 0;
  manifest_ = ManifestOf(position);
  absl::StatusOr<std::string> partial = store_->Begin(position.step);
  if (!partial.ok()) {
    End(partial.status());
    return absl::OkStatus();
  }
  partial_ = *std::move(partial);
  return workers->StartSave(partial_);
}

void CheckpointSaver::Poll(WorkerGroup* workers) {
  if (busy() && !completing_) {
    if (auto shards = workers->TakeSaved()) Complete(*std::move(shards));
  }
  if (!completing_ || !completing_->Done()) return;
  completing_ = nullptr;
  End(std::move(completed_));
}

void CheckpointSaver::Complete(absl::StatusOr<SavedShards> shards) {
  if (shards.ok()) manifest_.mutable_shard()->Add(shards->begin(), shards->end());
  completing_ = world_->Spawn({.name = "checkpoint"}, [this, status = shards.status()] {
    if (status.ok()) {
      completed_ = store_->Commit(partial_, manifest_);
    } else {
      completed_ = status;
      store_->Abandon(partial_);
    }
  });
}

void CheckpointSaver::End(absl::StatusOr<std::string> path) {
  partial_.clear();
  failure_ = path.status();
  if (path.ok()) {
    path_ = *std::move(path);
    spdlog::info("saved step {}: {} ({})", manifest_.step(), path_, FormatBytes(BytesOf(manifest_)));
  } else {
    spdlog::warn("no checkpoint of step {}: {}; older ones stay as they are", manifest_.step(),
                 std::string(failure_.message()));
  }
}

absl::Status CheckpointSaver::SaveLast(const RunPosition& position, WorkerGroup* workers) {
  RETURN_IF_ERROR(Finish(workers));
  if (position.step == saved_step_ && failure_.ok()) return absl::OkStatus();
  return Begin(position, workers);
}

absl::Status CheckpointSaver::Finish(WorkerGroup* workers) {
  if (busy() && !completing_) RETURN_IF_ERROR(workers->FinishSave());
  Poll(workers);
  if (completing_) CHECK_OK(world_->Wait(completing_));
  Poll(workers);
  CHECK(!busy()) << "all have told what they have saved";
  return absl::OkStatus();
}

proto::CheckpointManifest CheckpointSaver::ManifestOf(const RunPosition& position) const {
  proto::CheckpointManifest manifest;
  manifest.set_step(position.step);
  manifest.set_updates(position.updates);
  manifest.set_loss(position.last_loss);
  manifest.set_skipped_steps(position.skipped_steps);
  manifest.set_nonfinite_in_a_row(position.nonfinite_in_a_row);
  manifest.set_graph(GraphToText(job_.graph));
  manifest.set_job(job_.text);
  manifest.set_job_fingerprint(job_.fingerprint);
  manifest.set_layout(LayoutText(job_.layout));
  for (const auto& [name, value] : facts_) {
    auto* const fact = manifest.add_fact();
    fact->set_name(name);
    fact->set_value(value);
    if (name == kProgramFact) manifest.set_program(value);
    if (name == kDataFact) manifest.set_data_fingerprint(HashName(value));
  }
  return manifest;
}

}  // namespace sluice
