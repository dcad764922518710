#include "runtime/config/job.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/philox.h"
#include "base/status.h"
#include "proto/job.pb.h"
#include "proto/text.h"
#include "runtime/config/layer_profile.h"
#include "runtime/config/model.h"
#include "runtime/config/paths.h"
#include "runtime/config/problems.h"
#include "runtime/config/validate.h"
#include "scheduler/generators.h"

namespace sluice {
namespace {

// The plain field takes the proto's value if there is one.
#define TAKE(from, to, field) \
  if (from.has_##field()) to.field = from.field()

ModelConfig ModelFrom(const proto::Model& from) {
  ModelConfig model;
  TAKE(from, model, family);
  TAKE(from, model, preset);
  TAKE(from, model, graph);
  TAKE(from, model, from);
  TAKE(from, model, layers);
  TAKE(from, model, channels);
  TAKE(from, model, heads);
  TAKE(from, model, kv_heads);
  TAKE(from, model, head_size);
  TAKE(from, model, width);
  TAKE(from, model, positions);
  TAKE(from, model, vocabulary);
  TAKE(from, model, tied);
  TAKE(from, model, bias);
  TAKE(from, model, dropout);
  TAKE(from, model, rope_theta);
  TAKE(from, model, norm_epsilon);
  return model;
}

DataConfig DataFrom(const proto::Data& from) {
  DataConfig data;
  TAKE(from, data, text);
  data.tokens.assign(from.tokens().begin(), from.tokens().end());
  data.token_type = from.token_type() == proto::Data::uint32 ? TokenType::kUint32 : TokenType::kUint16;
  data.hold_out_files.assign(from.hold_out().files().begin(), from.hold_out().files().end());
  data.hold_out_fraction = from.hold_out().fraction();
  data.separate_documents = from.documents().separate();
  if (from.documents().has_end_token()) data.end_token = from.documents().end_token();
  TAKE(from, data, ignore_index);
  return data;
}

int64_t LargestDivisor(int64_t number, int64_t most) {
  int64_t divisor = std::clamp<int64_t>(number, 1, most);
  while (number % divisor != 0) --divisor;
  return divisor;
}

Recomputation RecomputeFrom(int value) {
  switch (value) {
    case proto::Training::selective:
      return Recomputation::kSelective;
    case proto::Training::full:
      return Recomputation::kFull;
    default:
      return Recomputation::kNone;
  }
}

TrainingConfig TrainingFrom(const proto::Training& from, int64_t stages) {
  TrainingConfig training;
  TAKE(from, training, steps);
  TAKE(from, training, batch);
  training.micro_batches = from.has_micro_batches() ? from.micro_batches() : LargestDivisor(training.batch, 8);
  TAKE(from, training, sequence);
  training.precision = from.precision() == proto::Training::bf16 ? Precision::kBF16 : Precision::kF32;
  TAKE(from, training, seed);
  TAKE(from, training, gradient_groups);
  training.recompute.assign(std::clamp<int64_t>(stages, 0, kStagesMax), RecomputeFrom(from.recompute()));
  if (from.recompute_stages_size() > 0) {
    training.recompute.clear();
    for (const int value : from.recompute_stages()) training.recompute.push_back(RecomputeFrom(value));
  }
  TAKE(from, training, evaluate_every);
  TAKE(from, training, evaluate_batches);
  TAKE(from, training, stop_after_nonfinite);
  TAKE(from, training, check_replicas_every);
  return training;
}

OptimizerConfig OptimizerFrom(const proto::Optimizer& from, int64_t steps) {
  OptimizerConfig optimizer;
  TAKE(from, optimizer, learning_rate);
  TAKE(from, optimizer, warm_up);
  optimizer.minimum_learning_rate =
      from.has_minimum_learning_rate() ? from.minimum_learning_rate() : optimizer.learning_rate / 10;
  optimizer.decay_steps = from.has_decay_steps() ? from.decay_steps() : steps;
  TAKE(from, optimizer, beta1);
  TAKE(from, optimizer, beta2);
  TAKE(from, optimizer, epsilon);
  TAKE(from, optimizer, weight_decay);
  TAKE(from, optimizer, clip_norm);
  return optimizer;
}

// Sizes that don't fit an int are cut to its ends; validation has refused them in the proto's own width.
int Narrow(int64_t value) { return static_cast<int>(std::clamp<int64_t>(value, -1, kStagesMax)); }

LayoutConfig LayoutFrom(const proto::Layout& from, const ScheduleConfig& schedule) {
  LayoutConfig layout;
  if (from.has_pp()) layout.pp = Narrow(from.pp());
  if (from.has_dp()) layout.dp = Narrow(from.dp());
  if (from.has_tp()) layout.tp = Narrow(from.tp());
  if (from.has_rank_order()) layout.order = ParseGridOrder(from.rank_order()).value_or(kDefaultGridOrder);
  TAKE(from, layout, zero1);
  TAKE(from, layout, sequence_parallel);
  layout.chunks = from.has_chunks() ? Narrow(from.chunks()) : ChunksOf(schedule.name);
  if (from.device() == proto::Layout::cpu) layout.device = DeviceKind::kCpu;
  if (from.device() == proto::Layout::cuda) layout.device = DeviceKind::kCuda;
  if (from.has_threads_per_rank()) layout.threads_per_rank = Narrow(from.threads_per_rank());
  TAKE(from, layout, pin);
  TAKE(from, layout, profile);
  TAKE(from, layout, algorithms);
  layout.layers_per_stage.assign(from.layers_per_stage().begin(), from.layers_per_stage().end());
  for (const std::string& limit : from.memory_limit()) layout.memory_limit.push_back(ParseBytes(limit).value_or(0));
  if (layout.memory_limit.size() == 1) layout.memory_limit.resize(std::max(layout.pp, 1), layout.memory_limit[0]);
  return layout;
}

ScheduleConfig ScheduleFrom(const proto::Schedule& from) {
  ScheduleConfig schedule;
  TAKE(from, schedule, name);
  if (from.has_queues()) schedule.queues = static_cast<QueuePolicy>(from.queues());
  if (from.has_receive_ahead()) schedule.receive_ahead = Narrow(from.receive_ahead());
  if (from.has_send_slots()) schedule.send_slots = Narrow(from.send_slots());
  TAKE(from, schedule, post_validation);
  TAKE(from, schedule, file);
  TAKE(from, schedule, in_flight_cap);
  if (from.has_group_size()) schedule.group_size = Narrow(from.group_size());
  return schedule;
}

SampleConfig SampleFrom(const proto::Sample& from) {
  SampleConfig sample;
  TAKE(from, sample, prompt);
  TAKE(from, sample, length);
  TAKE(from, sample, temperature);
  TAKE(from, sample, seed);
  return sample;
}

OutputConfig OutputFrom(const proto::Output& from) {
  OutputConfig output;
  TAKE(from, output, metrics);
  TAKE(from, output, trace);
  TAKE(from, output, trace_from);
  TAKE(from, output, trace_steps);
  TAKE(from, output, quiet);
  return output;
}

CheckpointConfig CheckpointFrom(const proto::Checkpoint& from) {
  CheckpointConfig checkpoint;
  TAKE(from, checkpoint, folder);
  TAKE(from, checkpoint, every_steps);
  TAKE(from, checkpoint, every_minutes);
  TAKE(from, checkpoint, keep_last);
  TAKE(from, checkpoint, keep_every);
  return checkpoint;
}

#undef TAKE

JobConfig FromProto(const proto::Job& job) {
  JobConfig config;
  config.model = ModelFrom(job.model());
  config.data = DataFrom(job.data());
  config.schedule = ScheduleFrom(job.schedule());
  config.layout = LayoutFrom(job.layout(), config.schedule);
  config.training = TrainingFrom(job.training(), int64_t{config.layout.pp} * config.layout.chunks);
  config.optimizer = OptimizerFrom(job.optimizer(), config.training.steps);
  config.sample = SampleFrom(job.sample());
  config.output = OutputFrom(job.output());
  config.checkpoint = CheckpointFrom(job.checkpoint());
  if (job.watchdog().has_seconds()) config.watchdog_seconds = job.watchdog().seconds();
  return config;
}

uint64_t FingerprintOf(proto::Job job) {
  job.clear_output();
  job.clear_checkpoint();
  return HashName(job.SerializeAsString());  // no maps: the bytes follow from the fields
}

void ResolvePaths(const std::string& file, const std::string& user_directory, const Problems& problems,
                  JobConfig& config) {
  const auto resolve = [&](absl::string_view field, std::string& path) {
    path = ResolvePath(problems.Overridden(field) ? user_directory : FolderOf(file), path);
  };
  resolve("model.graph", config.model.graph);
  resolve("model.from", config.model.from);
  resolve("schedule.file", config.schedule.file);
  resolve("layout.profile", config.layout.profile);
  resolve("layout.algorithms", config.layout.algorithms);
  resolve("data.text", config.data.text);
  for (size_t i = 0; i < config.data.tokens.size(); ++i) {
    resolve(absl::StrCat("data.tokens.", i), config.data.tokens[i]);
  }
  config.output.metrics = ResolvePath(user_directory, config.output.metrics);
  config.output.trace = ResolvePath(user_directory, config.output.trace);
  config.checkpoint.folder = ResolvePath(user_directory, config.checkpoint.folder);
}

// Whether it fits the job is known once the threads of a rank are.
absl::Status FollowProfile(LayoutConfig& layout) {
  if (layout.profile.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(LayerProfile profile, ReadLayerProfile(layout.profile));
  layout.measured = std::make_shared<const LayerProfile>(std::move(profile));
  return absl::OkStatus();
}

// What is in it is checked where there is a GPU.
absl::Status ReadAlgorithms(JobConfig& config) {
  if (config.layout.algorithms.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(config.layout.algorithms_text, ReadSmallFile(config.layout.algorithms));
  config.fingerprint = HashName(absl::StrCat(config.fingerprint, config.layout.algorithms_text));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<JobConfig> ParseJob(absl::string_view text, const std::string& file, const JobSource& source) {
  proto::Job job;
  ASSIGN_OR_RETURN(const TextLocations locations, ParseText(text, file, job));
  for (const std::string& assignment : source.overrides) RETURN_IF_ERROR(Override(assignment, job));
  Problems problems(&locations, source.overrides);
  CheckNumbers(job, problems);
  if (!problems.empty()) return problems.status();
  JobConfig config = FromProto(job);
  config.fingerprint = FingerprintOf(job);
  config.file = file;
  google::protobuf::TextFormat::PrintToString(job, &config.text);
  ResolvePaths(file, source.user_directory, problems, config);
  config.layout.memory_limit_place = problems.Place("layout.memory_limit");
  config.layout.profile_place = problems.Place("layout.profile");
  FollowScheduleFile(job, config, problems);
  if (source.profile_file == ProfileFile::kRead) {
    if (absl::Status status = FollowProfile(config.layout); !status.ok()) {
      problems.Add("layout.profile", absl::StrCat("layout.profile: ", status.message(), "; `sluice profile ", file,
                                                  "` makes it"));
    }
  }
  if (source.profile_file == ProfileFile::kRead) {
    if (absl::Status status = ReadAlgorithms(config); !status.ok()) {
      problems.Add("layout.algorithms", absl::StrCat("layout.algorithms: ", status.message(), "; `sluice profile ",
                                                     file, " --algorithms FILE` makes it"));
    }
  }
  CheckTogether(config, problems);
  if (!problems.empty()) return problems.status();
  if (absl::Status made = MakeModel(config); !made.ok()) {
    problems.Add(!config.model.from.empty()    ? "model.from"
                 : !config.model.graph.empty() ? "model.graph"
                                               : "model",
                 made.message());
    return problems.status();
  }
  CheckAgainstGraph(job, config, problems);
  if (!problems.empty()) return problems.status();
  return config;
}

absl::StatusOr<JobConfig> LoadJob(const std::string& path, const JobSource& source) {
  const std::string resolved = ResolvePath(source.user_directory, path);
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(resolved));
  return ParseJob(text, resolved, source);
}

std::optional<int64_t> ParseBytes(absl::string_view text) {
  struct Unit {
    absl::string_view name;
    double bytes;
  };
  static constexpr Unit kUnits[] = {
      {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"TiB", 1099511627776.0},
      {"kB", 1e3},     {"KB", 1e3},        {"MB", 1e6},           {"GB", 1e9},
      {"TB", 1e12},    {"B", 1.0}};
  double scale = 1;
  for (const Unit& unit : kUnits) {
    if (absl::ConsumeSuffix(&text, unit.name)) {
      scale = unit.bytes;
      break;
    }
  }
  double number = 0;
  if (!absl::SimpleAtod(text, &number) || !(number > 0) || number * scale > 0x1p60 || number * scale < 1) return {};
  return static_cast<int64_t>(number * scale);
}

double LearningRate(const OptimizerConfig& optimizer, int64_t step) {
  if (step < optimizer.warm_up) return optimizer.learning_rate * (step + 1) / optimizer.warm_up;
  const int64_t span = optimizer.decay_steps - optimizer.warm_up;
  if (span <= 0) return optimizer.learning_rate;
  const double done = std::min(1.0, static_cast<double>(step - optimizer.warm_up) / span);
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * done));
  return optimizer.minimum_learning_rate + (optimizer.learning_rate - optimizer.minimum_learning_rate) * cosine;
}

}  // namespace sluice
