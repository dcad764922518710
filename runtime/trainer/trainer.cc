#include "runtime/trainer/trainer.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/philox.h"
#include "base/status.h"
#include "runtime/data/batch.h"
#include "runtime/trace/chrome_trace.h"
#include "runtime/trace/file_writer.h"
#include "runtime/trace/metrics_log.h"
#include "runtime/trainer/checkpoint_saver.h"
#include "runtime/trainer/resume.h"
#include "runtime/trainer/run_facts.h"
#include "runtime/trainer/sampling.h"
#include "runtime/trainer/status_page.h"
#include "spdlog/spdlog.h"

namespace sluice {
namespace {

// Steps whose timelines the report is made from: the last ones, so that caches are warm.
constexpr size_t kMeasuredSteps = 32;
// The first ones warm up caches, pages and the clock.
constexpr int64_t kWarmUpSteps = 2;

// The loss adds micro-batches, then groups, in order.
double MeanLoss(const std::vector<float>& sums, const Batch& batch) {
  std::vector<double> groups(batch.shape.gradient_groups);
  for (size_t i = 0; i < sums.size(); ++i) groups[batch.micro_batches[i].gradient_group] += sums[i];
  double total = 0;
  for (double group : groups) total += group;
  return batch.valid_targets > 0 ? total / static_cast<double>(batch.valid_targets) : 0;
}

std::function<uint64_t()> MovesOf(ControlPlane* control) {
  if (control == nullptr) return nullptr;
  return [control] { return control->job_moves(); };
}

PipelineOptions PipelineOptionsOf(const Plan& plan, const TrainOptions& options) {
  const JobConfig& job = plan.job;
  return {.ranks = options.ranks,
          .open_transport = options.open_transport,
          .connect_transport = options.connect_transport,
          .threads_per_rank = job.layout.threads_per_rank,
          .processors = job.layout.pin ? options.processors : std::vector<int>(),
          .gpu_share = options.gpu_share,
          .on_gpus = options.on_gpus,
          .watchdog_seconds = job.watchdog_seconds,
          .moves_elsewhere = MovesOf(options.control)};
}

// What each rank computed in all these steps: what slows a rank down may leave out single ones.
std::vector<RankBreakdown> ComputeOf(const std::vector<Timeline>& steps) {
  std::vector<RankBreakdown> ranks(steps.front().ranks);
  for (const Timeline& step : steps) {
    const std::vector<RankBreakdown> one = BreakDown(step);
    for (size_t rank = 0; rank < ranks.size(); ++rank) ranks[rank].compute_ns += one[rank].compute_ns;
  }
  return ranks;
}

// One run of the loop. Threads: one.
class Trainer {
 public:
  Trainer(World* world, const Plan& plan, const Dataset& dataset, const TrainOptions& options)
      : world_(world),
        plan_(plan),
        job_(plan.job),
        dataset_(dataset),
        options_(options),
        progress_(options.out, options.progress) {}

  absl::StatusOr<TrainReport> Run();

 private:
  absl::Status FindStart();
  absl::Status OpenOutputs();
  absl::Status StartWorkers();
  absl::Status TrainSteps();
  absl::Status RunSteps();
  absl::Status FinishSteps(size_t left);
  bool EvaluatesAfter(int64_t step) const;
  bool ChecksReplicasAfter(int64_t step) const;
  absl::Status AfterStep(int64_t step, const Batch& batch, Nanoseconds began, TrainingOutcome outcome);
  absl::Status CountNonFinite(int64_t step, bool skipped);
  void Record(int64_t step, TrainingOutcome outcome);
  double BubbleOf(const TimelineMetrics& metrics) const;
  Nanoseconds StepTime(const Timeline& timeline) const;
  void Report(int64_t step, double loss, const Batch& batch, const TrainingOutcome& outcome, Nanoseconds began);
  absl::Status Evaluate(int64_t batches_max);
  absl::Status Sample();
  void FinishReport();
  void KeepFlightRecord();
  bool Stopping() const {
    return (options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed)) ||
           (workers_ != nullptr && workers_->stop_asked());
  }

  World* const world_;
  const Plan& plan_;
  const JobConfig& job_;
  const Dataset& dataset_;
  const TrainOptions& options_;
  ProgressPrinter progress_;
  std::unique_ptr<WorkerGroup> workers_;
  std::unique_ptr<MetricsLog> metrics_;
  std::unique_ptr<StatusPage> page_;
  std::unique_ptr<ChromeTraceWriter> trace_;
  TrainReport report_;
  struct Running {
    int64_t step = 0;
    Nanoseconds began = 0;
  };
  std::deque<Running> running_;                            // started and not finished
  Nanoseconds step_ended_ = 0;                             // the last one's end
  std::deque<Timeline> timelines_;
  std::string resumed_;                                    // the checkpoint that the run goes on from; empty: none
  RunPosition position_;
  std::unique_ptr<CheckpointSaver> saver_;  // null: nothing is saved
  int64_t traced_steps_ = 0;
  Nanoseconds began_ = 0;
  Nanoseconds evaluating_ = 0;
};

// A checkpoint that doesn't fit is refused before anything is made.
absl::Status Trainer::FindStart() {
  ASSIGN_OR_RETURN(const auto checkpoint, OpenCheckpointToResume(options_.resume, job_.checkpoint.folder));
  const RunFacts facts = FactsOf(plan_, dataset_, options_.program);
  if (checkpoint != nullptr) {
    RETURN_IF_ERROR(CheckResumes(*checkpoint, facts, job_, options_.resume_changes));
    position_ = PositionOf(checkpoint->manifest());
    report_.resumed_after = position_.step;
    report_.last_loss = position_.last_loss;
    resumed_ = checkpoint->path();
    progress_.Line(absl::StrCat("going on after step ", position_.step, ": ", resumed_));
  }
  if (job_.checkpoint.folder.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(saver_, CheckpointSaver::Open(world_, plan_, facts, position_.step));
  return absl::OkStatus();
}

// The outputs are opened before the first step, so that a wrong path is known at once and not after hours.
absl::Status Trainer::OpenOutputs() {
  if (!job_.output.metrics.empty()) {
    ASSIGN_OR_RETURN(metrics_, MetricsLog::Create(job_.output.metrics, [](const absl::Status& status) {
      spdlog::warn("{}; training goes on without metrics", std::string(status.message()));
    }, position_.step));
  }
  if (!job_.output.trace.empty()) {
    auto trace = ChromeTraceWriter::Create(job_.output.trace);
    if (trace.ok()) {
      trace_ = *std::move(trace);
    } else {
      spdlog::warn("{}; training goes on without a trace", std::string(trace.status().message()));
    }
  }
  if (options_.status_port >= 0) {
    ASSIGN_OR_RETURN(page_, StatusPage::Start(world_, job_.file, options_.status_bind, options_.status_port));
    spdlog::info("status page: http://{}:{}/", options_.status_bind, page_->port());
  }
  return absl::OkStatus();
}

absl::StatusOr<TrainReport> Trainer::Run() {
  RETURN_IF_ERROR(StartWorkers());
  absl::Status status = TrainSteps();
  if (status.ok() && saver_ != nullptr) status = saver_->SaveLast(position_, workers_.get());
  if (status.ok() && dataset_.held_out().size() > 0) status = Evaluate(job_.training.evaluate_batches);
  if (status.ok() && job_.sample.length > 0 && !Stopping()) status = Sample();
  if (status.ok() && saver_ != nullptr) status = saver_->Finish(workers_.get());
  if (status.ok()) status = workers_->Finish();
  progress_.Finish();
  if (!status.ok()) KeepFlightRecord();
  RETURN_IF_ERROR(status);
  FinishReport();
  return std::move(report_);
}

// What fails here ends the other processes too.
absl::Status Trainer::StartWorkers() {
  absl::Status status = FindStart();
  if (status.ok()) status = OpenOutputs();
  if (!status.ok() && options_.control != nullptr) options_.control->Abort(status);
  RETURN_IF_ERROR(status);
  ASSIGN_OR_RETURN(workers_, WorkerGroup::Create(world_, plan_, dataset_, PipelineOptionsOf(plan_, options_),
                                                 options_.control, options_.processes));
  return resumed_.empty() ? absl::OkStatus() : workers_->Restore(resumed_);
}

// Beside the trace, where there is one; in the log otherwise.
void Trainer::KeepFlightRecord() {
  const std::string report = workers_->FailureReport();
  if (report.empty()) return;
  const std::string path = absl::StrCat(job_.output.trace, ".flight-record.txt");
  if (!job_.output.trace.empty() && WriteWholeFile(path, report).ok()) {
    spdlog::error("what the ranks did last is in {}", path);
  } else {
    spdlog::error("what the ranks did last:\n{}", report);
  }
}

absl::Status Trainer::TrainSteps() {
  began_ = world_->Now();
  absl::Status status = RunSteps();
  // What still runs reads batches.
  while (workers_->steps_running() > 0) workers_->FinishStep().status().IgnoreError();
  report_.duration = world_->Now() - began_ - evaluating_;
  return status;
}

// With post-validation one step is always on its way while the one before ends, except where parameters are read.
absl::Status Trainer::RunSteps() {
  const size_t ahead = plan_.post_validation.has_value() ? 1 : 0;
  for (int64_t step = position_.step; step < job_.training.steps && !Stopping(); ++step) {
    running_.push_back({step, world_->Now()});
    workers_->StartStep({.step = step,
                         .learning_rate = static_cast<float>(LearningRate(job_.optimizer, step)),
                         .update = position_.updates + 1});
    const bool evaluates = EvaluatesAfter(step);
    const bool checks = ChecksReplicasAfter(step);
    const bool saves = saver_ != nullptr && saver_->DueAfter(step + 1);
    RETURN_IF_ERROR(FinishSteps(evaluates || checks || saves ? 0 : ahead));
    if (checks) RETURN_IF_ERROR(workers_->CheckReplicas());
    if (saves) RETURN_IF_ERROR(saver_->Save(position_, workers_.get()));
    if (evaluates) RETURN_IF_ERROR(Evaluate(job_.training.evaluate_batches));
  }
  return FinishSteps(0);
}

bool Trainer::EvaluatesAfter(int64_t step) const {
  const int64_t every = job_.training.evaluate_every;
  return every > 0 && (step + 1) % every == 0 && step + 1 < job_.training.steps && dataset_.held_out().size() > 0;
}

// Also after the last step, so that what is evaluated and kept is what all replicas have.
bool Trainer::ChecksReplicasAfter(int64_t step) const {
  const int64_t every = job_.training.check_replicas_every;
  if (every <= 0 || job_.layout.dp == 1) return false;
  return (step + 1) % every == 0 || step + 1 == job_.training.steps;
}

// Until no more than `left` of them run.
absl::Status Trainer::FinishSteps(size_t left) {
  while (running_.size() > left) {
    ASSIGN_OR_RETURN(TrainingOutcome outcome, workers_->FinishStep());
    const Running step = running_.front();
    running_.pop_front();
    const Nanoseconds began = std::max(step.began, step_ended_);
    step_ended_ = world_->Now();
    RETURN_IF_ERROR(AfterStep(step.step, workers_->worker().BatchOf(step.step), began, std::move(outcome)));
    if (saver_ != nullptr) saver_->Poll(workers_.get());
  }
  return absl::OkStatus();
}

absl::Status Trainer::AfterStep(int64_t step, const Batch& batch, Nanoseconds began, TrainingOutcome outcome) {
  if (batch.valid_targets == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "step ", step + 1, " has no target that counts: all are ignored (data.ignore_index, data.documents, data.end_token)"));
  }
  const double loss = MeanLoss(outcome.loss_sums, batch);
  const bool skipped = outcome.control.skip != 0;
  report_.last_loss = position_.last_loss = loss;
  report_.tokens += batch.shape.rows * batch.shape.sequence;
  ++report_.steps;
  if (options_.losses != nullptr) options_.losses->push_back(loss);
  const float scale = outcome.control.scale;
  Report(step, loss, batch, outcome, began);
  Record(step, std::move(outcome));
  RETURN_IF_ERROR(CountNonFinite(step, skipped));
  if (!skipped) ++position_.updates;
  position_.step = step + 1;
  report_.revised_steps += plan_.post_validation.has_value() && (skipped || scale != 1);
  return absl::OkStatus();
}

absl::Status Trainer::CountNonFinite(int64_t step, bool skipped) {
  int64_t& in_a_row = position_.nonfinite_in_a_row;
  in_a_row = skipped ? in_a_row + 1 : 0;
  report_.skipped_steps += skipped;
  position_.skipped_steps += skipped;
  if (in_a_row < job_.training.stop_after_nonfinite || job_.training.stop_after_nonfinite <= 0) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "the gradient was not finite in ", in_a_row, " steps in a row, the last being step ", step + 1,
      "; lower optimizer.learning_rate, lengthen optimizer.warm_up or look at the data (training.stop_after_nonfinite)"));
}

void Trainer::Record(int64_t step, TrainingOutcome outcome) {
  Timeline& timeline = outcome.timeline;
  const auto& output = job_.output;
  const int64_t number = step + 1;  // as reports and traces count
  if (trace_ != nullptr && number >= output.trace_from && number - output.trace_from < output.trace_steps) {
    const absl::Status status = trace_->Add({.step = number, .begin_ns = outcome.began - began_, .timeline = timeline});
    if (!status.ok()) {
      spdlog::warn("{}; training goes on without a trace", std::string(status.message()));
      trace_.reset();
    }
    ++traced_steps_;
  }
  const int64_t begin = report_.resumed_after;
  if (step - begin < kWarmUpSteps && job_.training.steps - begin > kWarmUpSteps) return;
  timelines_.push_back(std::move(timeline));
  if (timelines_.size() > kMeasuredSteps) timelines_.pop_front();
}

// Of the step alone; where ranks run ahead of each other, of the rank that takes longest.
Nanoseconds Trainer::StepTime(const Timeline& timeline) const {
  if (!plan_.post_validation.has_value()) return Measure(timeline).step_ns;
  std::vector<Nanoseconds> begins(timeline.ranks, kForever), ends(timeline.ranks, 0);
  for (const Span& span : timeline.spans) {
    if (IsTransfer(span.action.kind)) continue;
    const size_t rank = span.rank.index();
    if (IsCompute(span.action.kind)) begins[rank] = std::min(begins[rank], span.begin_ns);
    ends[rank] = std::max(ends[rank], span.end_ns);
  }
  Nanoseconds longest = 0;
  for (size_t rank = 0; rank < begins.size(); ++rank) longest = std::max(longest, ends[rank] - begins[rank]);
  return longest;
}

// Where ranks run ahead of each other the span counts.
double Trainer::BubbleOf(const TimelineMetrics& metrics) const {
  return plan_.post_validation.has_value() ? metrics.span_bubble : metrics.makespan_bubble;
}

void Trainer::Report(int64_t step, double loss, const Batch& batch, const TrainingOutcome& outcome, Nanoseconds began) {
  const Nanoseconds now = world_->Now();
  const double seconds = static_cast<double>(now - began) / kSecond;
  const double rate = static_cast<double>(batch.shape.rows * batch.shape.sequence) / std::max(seconds, 1e-9);
  const double bubble = BubbleOf(Measure(outcome.timeline));
  const double learning_rate = LearningRate(job_.optimizer, step);
  const bool skipped = outcome.control.skip != 0;
  const Nanoseconds mean = (now - began_ - evaluating_) / (step + 1 - report_.resumed_after);
  const StepProgress progress{.step = step + 1,
                  .steps = job_.training.steps,
                  .loss = loss,
                  .learning_rate = learning_rate,
                  .gradient_norm = outcome.control.norm,
                  .tokens_per_second = rate,
                  .bubble = bubble,
                  .skipped = skipped,
                  .left = mean * (job_.training.steps - step - 1)};
  progress_.Step(progress);
  if (page_ != nullptr) page_->Update(progress, outcome.timeline, workers_->memory(), report_.tokens);
  if (metrics_ == nullptr) return;
  StepMetrics metrics;
  metrics.step = step + 1;
  metrics.loss = loss;
  metrics.learning_rate = learning_rate;
  metrics.gradient_norm = outcome.control.norm;
  metrics.tokens_per_second = rate;
  metrics.step_seconds = seconds;
  metrics.bubble = bubble;
  metrics.skipped = skipped;
  metrics_->Write(metrics);
}

absl::Status Trainer::Evaluate(int64_t batches_max) {
  const Nanoseconds began = world_->Now();
  double total = 0;
  int64_t targets = 0;
  const int64_t batches = workers_->worker().batches().EvaluationBatches(batches_max);
  for (int64_t index = 0; index < batches; ++index) {
    if (Stopping()) {  // a part of the text is no measure of it
      progress_.Line("evaluation interrupted");
      evaluating_ += world_->Now() - began;
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const std::vector<float> sums, workers_->Evaluate(index, batches_max));
    for (float sum : sums) total += sum;
    targets += workers_->worker().evaluation_batch().valid_targets;
  }
  evaluating_ += world_->Now() - began;
  if (targets == 0) {
    progress_.Line("no token of the held-out text counts as a target: nothing to evaluate");
    return absl::OkStatus();
  }
  report_.held_out_loss = total / static_cast<double>(targets);
  report_.held_out_targets = targets;
  progress_.Line(absl::StrFormat("held-out loss after step %d: %.4f nats a token", position_.step, report_.held_out_loss));
  if (page_ != nullptr) page_->SetHeldOutLoss(position_.step, report_.held_out_loss);
  if (metrics_ != nullptr) {
    StepMetrics metrics;
    metrics.step = position_.step;
    metrics.evaluation_loss = report_.held_out_loss;
    metrics_->Write(metrics);
  }
  return absl::OkStatus();
}

// The last `sequence` tokens are what the model sees of a longer text.
absl::Status Trainer::Sample() {
  const SampleConfig& sample = job_.sample;
  std::vector<int32_t> text;
  for (unsigned char byte : sample.prompt) text.push_back(byte);
  if (text.empty()) text.push_back('\n');
  for (int64_t i = 0; i < sample.length && !Stopping(); ++i) {
    const auto length = std::min<int64_t>(static_cast<int64_t>(text.size()), job_.training.sequence);
    ASSIGN_OR_RETURN(const std::vector<float> logits, workers_->Logits(absl::MakeConstSpan(text).last(length)));
    const PhiloxBlock words = RandomWords(sample.seed, HashName("sample"), 0, 0, static_cast<uint64_t>(i));
    text.push_back(SampleToken(logits, sample.temperature, UnitFloat(words[0])));
  }
  for (int32_t token : text) {  // what would steer a terminal is no text
    const bool control = (token < 0x20 && token != '\n' && token != '\t') || token == 0x7f || token > 0xff;
    report_.sample += control ? '?' : static_cast<char>(token);
  }
  return absl::OkStatus();
}

void Trainer::FinishReport() {
  report_.memory = workers_->memory();
  report_.planned_bubble = BubbleOf(plan_.metrics);
  if (saver_ != nullptr) {
    report_.not_saved = saver_->failure();
    report_.checkpoint = saver_->path();
  }
  if (trace_ != nullptr && traced_steps_ == 0) {
    spdlog::warn("no trace: the run ended before step {} (output.trace_from)", job_.output.trace_from);
    trace_.reset();
  }
  if (trace_ != nullptr) {
    const absl::Status status = trace_->Finish();
    if (status.ok()) {
      report_.trace_path = job_.output.trace;
    } else {
      spdlog::warn("{}; the trace is lost", std::string(status.message()));
    }
  }
  if (timelines_.empty()) return;
  std::vector<Timeline> timelines(timelines_.begin(), timelines_.end());
  std::sort(timelines.begin(), timelines.end(), [this](const Timeline& a, const Timeline& b) {
    return StepTime(a) < StepTime(b);
  });
  const Timeline& median = timelines[timelines.size() / 2];
  report_.breakdown = BreakDown(median);
  report_.stragglers = FindStragglers(ComputeOf(timelines), BreakDown(plan_.predicted), job_.layout.grid());
  report_.measured_bubble = BubbleOf(Measure(median));
  report_.measured_step = StepTime(median);
  const Costs costs =
      MeasuredCosts(PipelinesOf(timelines, job_.layout.grid()), plan_.training.placement, plan_.costs);
  const auto predicted = Simulate(plan_.training, costs);
  CHECK(predicted.ok()) << predicted.status();  // it has been proven, and has just run
  const TimelineMetrics metrics = Measure(*predicted);
  report_.predicted_bubble = BubbleOf(metrics);
  report_.predicted_step = StepTime(*predicted);
}

}  // namespace

absl::StatusOr<TrainReport> Train(World* world, const Plan& plan, const Dataset& dataset, const TrainOptions& options) {
  return Trainer(world, plan, dataset, options).Run();
}

absl::Status ServeTraining(World* world, const Plan& plan, const Dataset& dataset, const TrainOptions& options) {
  CHECK(options.control != nullptr) << "nobody to serve";
  absl::StatusOr<std::unique_ptr<Worker>> worker =
      Worker::Create(world, plan, dataset, PipelineOptionsOf(plan, options));
  if (!worker.ok()) {
    options.control->Abort(worker.status());
    return worker.status();
  }
  return ServeCommands(world, worker->get(), options.control, options.stop);
}

}  // namespace sluice
