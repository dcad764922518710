#include "runtime/trainer/worker_group.h"

#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/trainer/work_messages.h"

namespace sluice {

constexpr Nanoseconds kLeaveTime = 30 * kSecond;

FailureBridge::FailureBridge(World* world, Pipeline* pipeline, ControlPlane* control)
    : world_(world), control_(control) {
  control->SetMoves([pipeline] { return pipeline->moves(); });
  task_ = world->Spawn({.name = "failures"}, [this, pipeline, control] {
    const std::array<EventRef, 3> events = {control->cause(), pipeline->failed(), closing_};
    const std::optional<size_t> done = world_->WaitAny(events, kForever);
    if (done == 0) pipeline->Abort(control->cause()->status());
    if (done == 1) control->Abort(pipeline->failed()->status());
  });
}

FailureBridge::~FailureBridge() {
  control_->SetMoves(nullptr);
  closing_->Set(absl::OkStatus(), world_->Now());
  CHECK_OK(world_->Wait(task_));
}

WorkerGroup::WorkerGroup(World* world, const Plan& plan, ControlPlane* control, int processes)
    : world_(world), plan_(plan), control_(control), processes_(processes) {}

absl::StatusOr<std::unique_ptr<WorkerGroup>> WorkerGroup::Create(World* world, const Plan& plan,
                                                                 const Dataset& dataset,
                                                                 const PipelineOptions& options, ControlPlane* control,
                                                                 int processes) {
  auto group = std::unique_ptr<WorkerGroup>(new WorkerGroup(world, plan, control, processes));
  absl::StatusOr<std::unique_ptr<Worker>> worker = Worker::Create(world, plan, dataset, options);
  if (!worker.ok()) {
    if (control != nullptr) control->Abort(worker.status());
    return worker.status();
  }
  group->worker_ = *std::move(worker);
  group->memory_.resize(plan.job.layout.grid().ranks());
  if (control != nullptr) {
    group->bridge_ = std::make_unique<FailureBridge>(world, &group->worker_->pipeline(), control);
  }
  return group;
}

WorkerGroup::~WorkerGroup() = default;

void WorkerGroup::Tell(const proto::Command& command) {
  if (control_ == nullptr) return;
  told_.Update(control_->Broadcast(command.SerializeAsString()));
  if (told_.ok()) told_.Update(control_->NextBroadcast(kForever).status());  // it reaches this process too
}

absl::Status WorkerGroup::Cause(absl::Status status) const {
  if (control_ == nullptr) return status;
  if (control_->cause()->Done()) return control_->cause()->status();
  return status.ok() ? told_ : status;
}

absl::StatusOr<std::vector<proto::Answer>> WorkerGroup::Answers() {
  RETURN_IF_ERROR(Cause(absl::OkStatus()));
  std::vector<proto::Answer> answers;
  while (static_cast<int>(answers.size()) + 1 < processes_) {
    const absl::StatusOr<ControlPlane::ProcessReport> report = control_->NextReport(kForever);
    if (!report.ok()) return Cause(report.status());
    proto::Answer& answer = answers.emplace_back();
    if (!answer.ParseFromString(report->bytes)) {
      return absl::InvalidArgumentError(absl::StrCat("process ", report->process, " answers what can't be read"));
    }
    stop_asked_ |= answer.stop_asked();
    if (!answer.has_saved() || !saved_.has_value()) continue;
    absl::StatusOr<SavedShards> saved = SavedOf(answer.saved());
    if (!saved.ok()) saved = Annotate(saved.status(), absl::StrCat("process ", report->process));
    AddSaved(std::move(saved));
  }
  return answers;
}

absl::StatusOr<std::vector<RankOutcome>> WorkerGroup::WithOthers(absl::StatusOr<std::vector<RankOutcome>> here) {
  if (!here.ok()) return Cause(here.status());
  ASSIGN_OR_RETURN(const std::vector<proto::Answer> answers, Answers());
  for (const proto::Answer& answer : answers) {
    ASSIGN_OR_RETURN(std::vector<RankOutcome> ranks, OutcomesOf(answer, plan_.job.layout.grid()));
    for (RankOutcome& rank : ranks) here->push_back(std::move(rank));
  }
  for (const RankOutcome& rank : *here) memory_[rank.rank.index()] = rank.memory;
  return here;
}

void WorkerGroup::StartStep(const StepCommand& command) {
  proto::Command message;
  auto* const step = message.mutable_start_step();
  step->set_step(command.step);
  step->set_learning_rate(command.learning_rate);
  step->set_update(command.update);
  Tell(message);
  step_began_.push_back(world_->Now());
  worker_->StartStep(command);
}

absl::StatusOr<TrainingOutcome> WorkerGroup::FinishStep() {
  CHECK(!step_began_.empty()) << "no step has been started";
  const Nanoseconds began = step_began_.front();
  step_began_.pop_front();
  proto::Command message;
  message.mutable_finish_step();
  Tell(message);
  ASSIGN_OR_RETURN(const std::vector<RankOutcome> ranks, WithOthers(worker_->FinishStep()));
  return Assemble(plan_, ranks, began);
}

absl::StatusOr<std::vector<float>> WorkerGroup::Evaluate(int64_t index, int64_t batches_max) {
  proto::Command message;
  message.mutable_evaluate()->set_index(index);
  message.mutable_evaluate()->set_batches_max(batches_max);
  Tell(message);
  ASSIGN_OR_RETURN(const std::vector<RankOutcome> ranks, WithOthers(worker_->Evaluate(index, batches_max)));
  return LossSums(plan_, ranks);
}

absl::StatusOr<std::vector<float>> WorkerGroup::Logits(absl::Span<const int32_t> tokens) {
  proto::Command message;
  message.mutable_logits()->mutable_tokens()->Add(tokens.begin(), tokens.end());
  Tell(message);
  absl::StatusOr<std::vector<float>> logits = worker_->Logits(tokens);
  if (!logits.ok()) return Cause(logits.status());
  ASSIGN_OR_RETURN(const std::vector<proto::Answer> answers, Answers());
  for (const proto::Answer& answer : answers) {
    if (answer.logits_size() > 0) logits->assign(answer.logits().begin(), answer.logits().end());
  }
  return logits;
}

absl::StatusOr<std::vector<float>> WorkerGroup::ReadParameter(const std::string& name, int replica) {
  proto::Command message;
  message.mutable_read_parameter()->set_name(name);
  message.mutable_read_parameter()->set_replica(replica);
  Tell(message);
  absl::StatusOr<ShardValues> shards = worker_->pipeline().ReadShards(name, replica);
  if (!shards.ok()) return Cause(shards.status());
  ASSIGN_OR_RETURN(const std::vector<proto::Answer> answers, Answers());
  for (const proto::Answer& answer : answers) {
    for (const proto::ShardValues& shard : answer.shards()) {
      (*shards)[shard.shard()].assign(shard.values().begin(), shard.values().end());
    }
  }
  return CompleteParameter(plan_, name, *shards);
}

absl::Status WorkerGroup::Restore(const std::string& checkpoint) {
  proto::Command message;
  message.mutable_restore()->set_checkpoint(checkpoint);
  Tell(message);
  const absl::Status status = worker_->Restore(checkpoint);
  if (!status.ok() && control_ != nullptr) control_->Abort(status);
  RETURN_IF_ERROR(Cause(status));
  return Answers().status();
}

absl::Status WorkerGroup::StartSave(const std::string& folder) {
  CHECK(!saved_.has_value()) << "the last one has not been taken";
  proto::Command message;
  message.mutable_start_save()->set_folder(folder);
  Tell(message);
  saving_ = processes_;
  saved_ = SavedShards();
  return Cause(worker_->StartSave(folder));
}

// The first error stays.
void WorkerGroup::AddSaved(absl::StatusOr<SavedShards> saved) {
  --saving_;
  if (!saved_->ok()) return;
  if (saved.ok()) {
    (*saved_)->insert((*saved_)->end(), saved->begin(), saved->end());
  } else {
    saved_ = std::move(saved);
  }
}

std::optional<absl::StatusOr<SavedShards>> WorkerGroup::TakeSaved() {
  if (!saved_.has_value()) return std::nullopt;
  if (auto here = worker_->saver().Take()) AddSaved(*std::move(here));
  if (saving_ > 0) return std::nullopt;
  return std::exchange(saved_, std::nullopt);
}

absl::Status WorkerGroup::FinishSave() {
  if (!saved_.has_value()) return absl::OkStatus();
  proto::Command message;
  message.mutable_finish_save();
  Tell(message);
  worker_->saver().Wait();
  return Answers().status();
}

absl::Status WorkerGroup::CheckReplicas() {
  proto::Command message;
  message.mutable_hash_parameters();
  Tell(message);
  absl::StatusOr<std::vector<TensorHash>> hashes = worker_->pipeline().HashParameters();
  if (!hashes.ok()) return Cause(hashes.status());
  ASSIGN_OR_RETURN(const std::vector<proto::Answer> answers, Answers());
  for (const proto::Answer& answer : answers) {
    ASSIGN_OR_RETURN(const std::vector<TensorHash> theirs, HashesOf(answer, plan_.job.layout.grid()));
    hashes->insert(hashes->end(), theirs.begin(), theirs.end());
  }
  const absl::Status status = CompareReplicas(plan_.job.layout.grid(), *hashes);
  if (!status.ok() && control_ != nullptr) control_->Abort(status);
  return status;
}

absl::Status WorkerGroup::Finish() {
  if (control_ == nullptr) return absl::OkStatus();
  proto::Command message;
  message.mutable_end();
  Tell(message);
  RETURN_IF_ERROR(Cause(absl::OkStatus()));
  bridge_ = nullptr;
  return control_->Leave(world_->Now() + kLeaveTime);
}

namespace {

// Executes one command; nothing: it has no answer.
absl::StatusOr<std::optional<proto::Answer>> Serve(const proto::Command& command, Worker* worker) {
  proto::Answer answer;
  switch (command.work_case()) {
    case proto::Command::kStartStep: {
      const auto& step = command.start_step();
      worker->StartStep({.step = step.step(), .learning_rate = step.learning_rate(), .update = step.update()});
      return std::nullopt;
    }
    case proto::Command::kFinishStep: {
      ASSIGN_OR_RETURN(const std::vector<RankOutcome> ranks, worker->FinishStep());
      AddOutcomes(ranks, &answer);
      return answer;
    }
    case proto::Command::kEvaluate: {
      const auto& evaluate = command.evaluate();
      ASSIGN_OR_RETURN(const std::vector<RankOutcome> ranks, worker->Evaluate(evaluate.index(), evaluate.batches_max()));
      AddOutcomes(ranks, &answer);
      return answer;
    }
    case proto::Command::kLogits: {
      ASSIGN_OR_RETURN(const std::vector<float> logits, worker->Logits(command.logits().tokens()));
      answer.mutable_logits()->Add(logits.begin(), logits.end());
      return answer;
    }
    case proto::Command::kReadParameter: {
      const auto& read = command.read_parameter();
      ASSIGN_OR_RETURN(const ShardValues shards, worker->pipeline().ReadShards(read.name(), read.replica()));
      for (const auto& [number, values] : shards) {
        proto::ShardValues* const shard = answer.add_shards();
        shard->set_shard(number);
        shard->mutable_values()->Add(values.begin(), values.end());
      }
      return answer;
    }
    case proto::Command::kHashParameters: {
      ASSIGN_OR_RETURN(const std::vector<TensorHash> hashes, worker->pipeline().HashParameters());
      AddHashes(hashes, &answer);
      return answer;
    }
    case proto::Command::kRestore:
      RETURN_IF_ERROR(worker->Restore(command.restore().checkpoint()));
      return answer;
    case proto::Command::kStartSave:
      RETURN_IF_ERROR(worker->StartSave(command.start_save().folder()));
      return std::nullopt;
    case proto::Command::kFinishSave:
      worker->saver().Wait();
      return answer;
    case proto::Command::kEnd:
    case proto::Command::WORK_NOT_SET:
      break;
  }
  return absl::InternalError("process 0 sent a command that this program doesn't know");
}

absl::Status ServeUntilEnd(Worker* worker, ControlPlane* control, const std::atomic<bool>* stop) {
  for (;;) {
    ASSIGN_OR_RETURN(const std::string bytes, control->NextBroadcast(kForever));
    proto::Command command;
    if (!command.ParseFromString(bytes)) return absl::InternalError("process 0 sent a command that can't be read");
    if (command.work_case() == proto::Command::kEnd) return absl::OkStatus();
    ASSIGN_OR_RETURN(std::optional<proto::Answer> answer, Serve(command, worker));
    if (!answer.has_value()) continue;
    answer->set_stop_asked(stop != nullptr && stop->load(std::memory_order_relaxed));
    if (const auto saved = worker->saver().Take()) AddSaved(*saved, &*answer);
    answer->set_clock_offset_ns(control->clock_offset().offset);
    RETURN_IF_ERROR(control->Report(answer->SerializeAsString()));
  }
}

}  // namespace

absl::Status ServeCommands(World* world, Worker* worker, ControlPlane* control, const std::atomic<bool>* stop) {
  absl::Status status;
  {
    const FailureBridge bridge(world, &worker->pipeline(), control);
    status = ServeUntilEnd(worker, control, stop);
    if (!status.ok()) worker->pipeline().Abort(status);  // a step may be running
    while (worker->steps_running() > 0) worker->FinishStep().status().IgnoreError();
  }
  if (status.ok()) return control->Leave(world->Now() + kLeaveTime);
  if (!control->cause()->Done()) control->Abort(status);
  world->WaitAny({{control->cause()}}, world->Now() + kLeaveTime);
  return control->cause()->Done() ? control->cause()->status() : status;
}

}  // namespace sluice
