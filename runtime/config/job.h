// A job as plain structs, read once from its text form (proto/job.proto) and validated once. The defaults stand here.
// Plain values, immutable after loading.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "scheduler/lowering.h"
#include "scheduler/rank_grid.h"
#include "scheduler/schedule.h"
#include "stages/graph.h"

namespace sluice {

class ParameterSource;
struct LayerProfile;

// Sizes that are not given come from the preset or the family.
struct ModelConfig {
  std::string family = "gpt2";
  std::string preset;  // "124M"
  std::string graph;   // path of a graph file; then nothing else is given
  std::string from;    // path of a model that exists; then only dropout is given
  std::optional<int64_t> layers, channels, heads, kv_heads, head_size, width, positions, vocabulary;
  std::optional<bool> tied, bias;
  std::optional<double> dropout, rope_theta, norm_epsilon;
};

enum class TokenType : uint8_t { kUint16, kUint32 };

struct DataConfig {
  std::string text;                           // a file or a folder; or ...
  std::vector<std::string> tokens;            // ... files of token ids
  TokenType token_type = TokenType::kUint16;  // of headerless files
  std::vector<std::string> hold_out_files;    // names or globs
  double hold_out_fraction = 0;               // of the end of the text
  bool separate_documents = false;
  std::optional<int64_t> end_token;     // token files: ends a document
  std::optional<int64_t> ignore_index;  // targets that don't count
};

struct TrainingConfig {
  int64_t steps = 1000;
  int64_t batch = 32;         // rows per step
  int64_t micro_batches = 0;  // M, of all replicas; left out: the largest divisor of batch up to 8, whatever the layout
  int64_t sequence = 256;
  Precision precision = Precision::kF32;
  uint64_t seed = 1;
  int64_t gradient_groups = 0;           // left out: dp x the copies of the model that the schedule runs, 1 or 2
  std::vector<Recomputation> recompute;  // per stage
  int64_t evaluate_every = 0;            // steps; 0: only at the end
  int64_t evaluate_batches = 8;          // 0: all of the held-out part
  int64_t stop_after_nonfinite = 10;
  int64_t check_replicas_every = 100;  // steps; 0: never

  int64_t rows_per_micro_batch() const { return batch / micro_batches; }
};

struct OptimizerConfig {
  double learning_rate = 3e-4;
  int64_t warm_up = 0;
  double minimum_learning_rate = 3e-5;  // left out: a tenth of learning_rate
  int64_t decay_steps = 1000;           // left out: training.steps
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1;  // 0: no clipping
};

// Where ranks compute. kAuto is settled before a plan is made: GPUs where this program finds them.
enum class DeviceKind : uint8_t { kAuto, kCpu, kCuda };

struct LayoutConfig {
  DeviceKind device = DeviceKind::kAuto;
  std::string algorithms;       // path of the choices of products' algorithms; empty: none
  std::string algorithms_text;  // what it holds; part of the fingerprint
  int pp = 1;
  int dp = 1;
  int tp = 1;
  GridOrder order = kDefaultGridOrder;
  bool zero1 = false;
  bool sequence_parallel = false;
  int chunks = 1;            // stages per rank; left out: as many as the schedule needs
  int threads_per_rank = 0;  // 0: the machine's processors shared among the ranks
  bool pin = true;
  std::vector<int64_t> layers_per_stage;  // manual cuts, checked against the graph; empty: the partitioner's
  std::vector<int64_t> memory_limit;      // bytes per rank, one for each; empty: none
  std::string memory_limit_place;         // where it is written, before a message: "job.textproto:12: "
  std::string profile;                    // path of measured costs; empty: they are estimated
  std::string profile_place;
  std::shared_ptr<const LayerProfile> measured;  // what `profile` holds

  int stages_of_file = 0;  // of the job's schedule file, which need not have as many on each rank

  RankGrid grid() const { return RankGrid(pp, dp, tp, order); }
  int stages() const { return stages_of_file > 0 ? stages_of_file : pp * chunks; }
};

struct ScheduleConfig {
  std::string name = "1f1b";
  QueuePolicy queues = QueuePolicy::kOnePerDirection;
  int receive_ahead = 1;
  int send_slots = 2;
  bool post_validation = false;
  std::string file;                           // in place of a name
  double in_flight_cap = 0;                   // zb_auto, zb_v; 0: pp, or what the memory limit has room for
  int group_size = 0;                         // interleaved schedules; 0: they choose
  std::shared_ptr<const Schedule> from_file;  // what `file` holds

  // For people.
  const std::string& title() const { return file.empty() ? name : file; }
};

struct SampleConfig {
  std::string prompt;
  int64_t length = 0;
  double temperature = 0.8;
  uint64_t seed = 1;
};

struct OutputConfig {
  std::string metrics;
  std::string trace;
  int64_t trace_from = 3;  // counted from 1, as in every report; the first ones warm up
  int64_t trace_steps = 3;
  bool quiet = false;
};

struct CheckpointConfig {
  std::string folder;        // empty: nothing is saved
  int64_t every_steps = 0;   // with neither, only when the run ends
  double every_minutes = 0;
  int64_t keep_last = 3;
  int64_t keep_every = 0;  // steps; 0: no others than the last ones
};

struct JobConfig {
  std::string file;  // for messages
  std::string text;  // of the job, overrides applied
  // Of all that the job says, overrides included, but where it writes to.
  uint64_t fingerprint = 0;
  ModelConfig model;
  DataConfig data;
  TrainingConfig training;
  OptimizerConfig optimizer;
  LayoutConfig layout;
  ScheduleConfig schedule;
  SampleConfig sample;
  OutputConfig output;
  CheckpointConfig checkpoint;
  double watchdog_seconds = 60;  // 0: off
  LayerGraph graph;              // what `model` means, valid
  // Where its parameters come from; null: they begin as the graph says. m and v begin with zeros.
  std::shared_ptr<const ParameterSource> initial;

  // m: micro-batches of a step that each pipeline works on.
  int micro_batches_per_replica() const { return static_cast<int>(training.micro_batches / layout.dp); }
};

// Whether the file that layout.profile names must be there: not for who is about to write it.
enum class ProfileFile : uint8_t { kRead, kIgnored };

struct JobSource {
  std::string user_directory = ".";    // what the user's own paths are relative to (paths.h)
  std::vector<std::string> overrides;  // "training.steps=10", applied in order
  ProfileFile profile_file = ProfileFile::kRead;
};

// Reads and validates a job file. Paths of data and graph files inside it are relative to its folder; paths in
// overrides, and those of files that the job writes, to the user's directory. Errors: INVALID_ARGUMENT, one line for
// each thing that is wrong: file:line, what, and how to mend it; or why the file can't be read.
absl::StatusOr<JobConfig> LoadJob(const std::string& path, const JobSource& source = {});

// The same from text; `file` names it in errors and its folder is where its paths start.
absl::StatusOr<JobConfig> ParseJob(absl::string_view text, const std::string& file, const JobSource& source = {});

// "1500MB" (10^6), "2GiB" (2^30), "4096" -> bytes; nothing if it can't be read or is not positive.
std::optional<int64_t> ParseBytes(absl::string_view text);

// Learning rate of a step (from 0): linear warm-up to learning_rate, then a cosine to minimum_learning_rate.
double LearningRate(const OptimizerConfig& optimizer, int64_t step);

}  // namespace sluice
