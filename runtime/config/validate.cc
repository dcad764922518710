#include "runtime/config/validate.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/config/schedule.h"
#include "stages/tensor_parallel.h"

namespace sluice {
namespace {

constexpr int64_t kLarge = int64_t{1} << 40;
constexpr int64_t kRanksMax = 65536;

// A field of a section, with its path and its value if it is there.
template <class Value>
struct Field {
  absl::string_view path;
  bool given;
  Value value;
};
using Whole = Field<int64_t>;
using Real = Field<double>;

#define FIELD(section, name) \
  { #section "." #name, job.section().has_##name(), job.section().name() }

void CheckRange(const std::vector<Whole>& fields, int64_t least, int64_t most, Problems& problems) {
  for (const Whole& field : fields) {
    if (!field.given || (field.value >= least && field.value <= most)) continue;
    problems.Add(field.path, absl::StrCat(field.path, " is ", field.value, "; it must be ",
                                          most >= kLarge ? absl::StrCat("at least ", least)
                                                         : absl::StrCat("from ", least, " to ", most)));
  }
}

// Values in [least, most), or (least, most) where zero makes no sense.
enum class Least { kIncluded, kExcluded };
void CheckReal(const std::vector<Real>& fields, double least, double most, Least edge, Problems& problems) {
  for (const Real& field : fields) {
    if (!field.given) continue;
    const bool low = edge == Least::kIncluded ? field.value >= least : field.value > least;
    if (low && field.value < most) continue;  // not if it is not a number
    problems.Add(field.path, absl::StrCat(field.path, " is ", field.value, "; it must be ",
                                          edge == Least::kIncluded ? "at least " : "above ", least,
                                          std::isinf(most) ? "" : absl::StrCat(" and below ", most)));
  }
}

void CheckRankOrder(const proto::Layout& layout, Problems& problems) {
  if (!layout.has_rank_order() || ParseGridOrder(layout.rank_order())) return;
  problems.Add("layout.rank_order", absl::StrCat("layout.rank_order is \"", layout.rank_order(),
                                                 "\"; it must name tp, dp and pp once each, the one that varies fastest "
                                                 "first: \"tp-dp-pp\""));
}

bool Divides(int64_t divisor, int64_t number) { return divisor > 0 && number % divisor == 0; }

std::string Divisors(int64_t number) {
  std::string text;
  for (int64_t i = 1, shown = 0; i <= number && i <= 4096 && shown < 12; ++i) {
    if (number % i != 0) continue;
    absl::StrAppend(&text, shown == 0 ? "" : ", ", i);
    ++shown;
  }
  return text;
}

void CheckData(const DataConfig& data, Problems& problems) {
  if (data.text.empty() == data.tokens.empty()) {
    problems.Add("data", data.text.empty() ? "data needs text (a file or a folder) or tokens (files of token ids)"
                                           : "data has both text and tokens; give one of them");
  }
  if (!data.hold_out_files.empty() && data.hold_out_fraction > 0) {
    problems.Add("data.hold_out", "hold_out has both files and a fraction; give one of them");
  }
  if (!data.text.empty() && data.end_token) {
    problems.Add("data.documents.end_token", "end_token is for token files; each text file is a document");
  }
  if (!data.tokens.empty() && data.separate_documents && !data.end_token) {
    problems.Add("data.documents", "separate needs end_token with token files: the id that ends a document");
  }
}

void CheckCheckpoint(const CheckpointConfig& checkpoint, Problems& problems) {
  if (!checkpoint.folder.empty() || (checkpoint.every_steps == 0 && checkpoint.every_minutes == 0)) return;
  problems.Add("checkpoint", "checkpoint says when to save, but not where: give it a folder");
}

void CheckModel(const ModelConfig& model, Problems& problems) {
  const bool sizes = !model.preset.empty() || model.layers || model.channels || model.heads || model.kv_heads ||
                     model.head_size || model.width || model.positions || model.vocabulary || model.tied ||
                     model.bias || model.rope_theta || model.norm_epsilon;
  if (!model.graph.empty() && (sizes || model.dropout)) {
    problems.Add("model", "a graph file says all of the model; take out the preset and the sizes, or the graph");
  }
  if (!model.from.empty() && (sizes || !model.graph.empty())) {
    problems.Add("model", "a model that exists says all of itself but dropout; take out the graph, the preset and the sizes, or from");
  }
}

void CheckBatch(const TrainingConfig& training, const LayoutConfig& layout, Problems& problems) {
  if (!Divides(training.micro_batches, training.batch)) {
    problems.Add("training.micro_batches", absl::StrCat("micro_batches ", training.micro_batches, " must divide batch ",
                                                        training.batch, ": ", Divisors(training.batch)));
  } else if (!Divides(layout.dp, training.micro_batches)) {
    problems.Add("layout.dp", absl::StrCat("dp ", layout.dp, " must divide training.micro_batches ", training.micro_batches,
                                           " (each replica works on as many of them): ", Divisors(training.micro_batches)));
  }
}

// What the ranks of a grid need of one another.
void CheckGrid(const JobConfig& config, Problems& problems) {
  const LayoutConfig& layout = config.layout;
  if (int64_t{layout.pp} * layout.dp * layout.tp > kRanksMax) {
    problems.Add("layout.pp", absl::StrCat("pp x dp x tp is ", int64_t{layout.pp} * layout.dp * layout.tp,
                                           "; it must be at most ", kRanksMax));
  }
  if (layout.sequence_parallel && layout.tp == 1) {
    problems.Add("layout.sequence_parallel", "sequence_parallel splits what shards would do alike: it needs tp above 1");
  }
  const int64_t tokens = config.training.rows_per_micro_batch() * config.training.sequence;
  if (layout.sequence_parallel && tokens < layout.tp) {
    problems.Add("layout.sequence_parallel", absl::StrCat("a micro-batch has ", tokens, " tokens, too few to be split over tp ",
                                                          layout.tp, " shards"));
  }
  if (layout.zero1 && layout.dp == 1) {
    problems.Add("layout.zero1", "zero1 shares the optimizer among replicas: it needs dp above 1");
  }
}

void CheckGradientGroups(const TrainingConfig& training, int dp, int copies, Problems& problems) {
  if (!Divides(training.gradient_groups, training.micro_batches)) {
    problems.Add("training.gradient_groups",
                 absl::StrCat("gradient_groups ", training.gradient_groups, " must divide micro_batches ",
                              training.micro_batches, ": ", Divisors(training.micro_batches)));
  } else if (training.gradient_groups % (dp * copies) != 0) {
    const std::string models = dp == 1       ? absl::StrCat("the ", copies, " copies of the model that the schedule runs")
                               : copies == 1 ? absl::StrCat("dp ", dp)
                                             : absl::StrCat("dp ", dp, " x ", copies, " copies of the model");
    problems.Add("training.gradient_groups",
                 absl::StrCat("gradient_groups ", training.gradient_groups, " must be a multiple of ", models,
                              "; leave it out, or write ", dp * copies));
  }
}

// With two copies of the model, the ranks that hold a stage must hold the same stages, or what they allocate would
// depend on the copy: the second copy stands mirrored, and no rank holds a stage twice.
bool IsMirrored(const Placement& placement) {
  for (int stage = 0; stage < placement.stages(); ++stage) {
    const int one = placement.RankOf(StageId(stage), 0).value(), other = placement.RankOf(StageId(stage), 1).value();
    if (other != placement.ranks() - 1 - one || one == other) return false;
  }
  return true;
}

std::string UnknownName(const std::string& name) {
  std::vector<std::string> names;
  for (const Generator& generator : Generators()) names.push_back(generator.name);
  const std::string nearest = NearestName(names, name);
  return nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?");
}

void CheckSchedule(JobConfig& config, Problems& problems) {
  const std::string field = config.schedule.file.empty() ? "schedule.name" : "schedule.file";
  const std::string& title = config.schedule.title();
  const absl::StatusOr<Schedule> schedule = ScheduleOf(config);
  if (!schedule.ok()) {
    const bool unknown = absl::IsNotFound(schedule.status());
    problems.Add(field, absl::StrCat(schedule.status().message(), unknown ? UnknownName(config.schedule.name) : ""));
    return;
  }
  const Placement& placement = schedule->placement;
  const int copies = placement.copies();
  if (schedule->pass != PassKind::kTraining) {
    problems.Add(field, absl::StrCat(title, " is not for training"));
  } else if (schedule->micro_batches % copies != 0) {
    problems.Add(field, absl::StrCat(title, " holds ", copies, " copies of the model, but has ",
                                     schedule->micro_batches, " micro-batches; each copy must have as many"));
  } else if (copies > 1 && !IsMirrored(placement)) {
    problems.Add(
        field,
        absl::StrCat(title, " holds two copies of the model; to be trained with, stage s of the second ",
                     "one must be on rank p-1-r where that of the first one is on rank r, and not on ", "the same"));
  } else if (placement.stages() != config.layout.stages()) {
    problems.Add("layout.chunks",
                 absl::StrCat(title, " has ", placement.stages() / config.layout.pp, " stages on each rank, not ",
                              config.layout.chunks, "; set that number or leave it out"));
  } else {
    const int dp = config.layout.dp;
    if (config.training.gradient_groups == 0) config.training.gradient_groups = dp * copies;
    CheckGradientGroups(config.training, dp, copies, problems);
  }
}

void CheckLists(const JobConfig& config, Problems& problems) {
  const size_t stages = config.layout.stages();
  if (config.training.recompute.size() != stages) {
    problems.Add("training.recompute_stages", absl::StrCat("recompute_stages has ", config.training.recompute.size(),
                                                           " entries; there are ", stages, " stages"));
  }
  const std::vector<int64_t>& limits = config.layout.memory_limit;
  if (!limits.empty() && limits.size() != static_cast<size_t>(config.layout.pp)) {
    problems.Add("layout.memory_limit", absl::StrCat("memory_limit has ", limits.size(),
                                                     " entries; give one for all ranks, or ", config.layout.pp));
  }
}

// The number of layers of every stage from the names of those that begin one.
std::vector<int64_t> LayersFromNames(const proto::Layout& layout, const LayerGraph& graph, Problems& problems) {
  std::vector<int64_t> counts;
  size_t begin = 0;
  for (int i = 0; i < layout.cut_before_size(); ++i) {
    const std::string field = absl::StrCat("layout.cut_before.", i);
    std::vector<std::string> names;
    size_t at = graph.nodes.size();
    for (size_t node = 0; node < graph.nodes.size(); ++node) {
      names.push_back(graph.nodes[node].name);
      if (graph.nodes[node].name == layout.cut_before(i)) at = node;
    }
    if (at == graph.nodes.size()) {
      const std::string nearest = NearestName(names, layout.cut_before(i));
      problems.Add(field, absl::StrCat("there is no layer \"", layout.cut_before(i), "\"",
                                       nearest.empty() ? "" : absl::StrCat("; did you mean \"", nearest, "\"?")));
      return {};
    }
    if (at <= begin) {
      problems.Add(field, absl::StrCat("the cut before \"", layout.cut_before(i),
                                       "\" leaves a stage empty; cuts must follow the order of the layers"));
      return {};
    }
    counts.push_back(static_cast<int64_t>(at - begin));
    begin = at;
  }
  counts.push_back(static_cast<int64_t>(graph.nodes.size() - begin));
  return counts;
}

void CheckCuts(const proto::Layout& layout, JobConfig& config, Problems& problems) {
  std::vector<int64_t>& counts = config.layout.layers_per_stage;
  const bool names = layout.cut_before_size() > 0;
  if (names && !counts.empty()) {
    problems.Add("layout", "layout has both cut_before and layers_per_stage; give one of them");
    return;
  }
  if (names) counts = LayersFromNames(layout, config.graph, problems);
  if (counts.empty()) return;
  const int64_t nodes = static_cast<int64_t>(config.graph.nodes.size());
  const std::string field = names ? "layout.cut_before" : "layout.layers_per_stage";
  if (static_cast<int>(counts.size()) != config.layout.stages()) {
    problems.Add(field,
                 absl::StrCat("the cuts make ", counts.size(), " stages; pp x chunks is ", config.layout.stages()));
    return;
  }
  int64_t sum = 0;
  for (const int64_t count : counts) {
    if (count < 1 || count > nodes) {
      problems.Add(field, absl::StrCat("a stage of ", count, " layers is not possible"));
      return;
    }
    sum += count;
  }
  if (sum != nodes) {
    problems.Add(field, absl::StrCat("the stages have ", sum, " layers together; the model has ", nodes));
  }
}

// The text form also takes an enum's number, and any number: "precision: 7".
void CheckEnums(const proto::Job& job, Problems& problems) {
  auto check = [&](const char* path, bool known, int value) {
    if (!known) problems.Add(path, absl::StrCat(path, " is ", value, ", which means nothing; write its name"));
  };
  const auto& training = job.training();
  check("training.precision", proto::Training::Precision_IsValid(training.precision()), training.precision());
  check("training.recompute", proto::Training::Recompute_IsValid(training.recompute()), training.recompute());
  for (const int value : training.recompute_stages()) {
    check("training.recompute_stages", proto::Training::Recompute_IsValid(value), value);
  }
  check("data.token_type", proto::Data::TokenType_IsValid(job.data().token_type()), job.data().token_type());
  check("schedule.queues", proto::Schedule::Queues_IsValid(job.schedule().queues()), job.schedule().queues());
}

}  // namespace

void CheckNumbers(const proto::Job& job, Problems& problems) {
  CheckEnums(job, problems);
  if (job.has_format_version() && job.format_version() != 1) {
    problems.Add("format_version",
                 absl::StrCat("format_version is ", job.format_version(), "; this program understands 1"));
  }
  const double infinity = std::numeric_limits<double>::infinity();
  constexpr int64_t kSize = int64_t{1} << 30;
  CheckRange({FIELD(model, channels), FIELD(model, heads), FIELD(model, kv_heads), FIELD(model, head_size),
              FIELD(model, width), FIELD(model, positions), FIELD(model, vocabulary)},
             1, kSize, problems);
  CheckRange({FIELD(model, layers)}, 1, 16384, problems);
  CheckRange({FIELD(training, steps), FIELD(training, stop_after_nonfinite), FIELD(output, trace_from),
              FIELD(output, trace_steps)},
             1, kLarge, problems);
  CheckRange({FIELD(training, batch), FIELD(training, micro_batches), FIELD(training, sequence),
              FIELD(training, gradient_groups)},
             1, int64_t{1} << 24, problems);
  CheckRange({FIELD(layout, pp), FIELD(layout, dp), FIELD(layout, tp), FIELD(layout, chunks)}, 1, 4096, problems);
  CheckRange({FIELD(training, evaluate_every), FIELD(training, evaluate_batches),
              FIELD(training, check_replicas_every), FIELD(optimizer, warm_up),
              FIELD(optimizer, decay_steps), FIELD(checkpoint, every_steps), FIELD(checkpoint, keep_every)},
             0, kLarge, problems);
  CheckRange({FIELD(checkpoint, keep_last)}, 1, kLarge, problems);
  CheckRange({FIELD(layout, threads_per_rank), FIELD(schedule, receive_ahead)}, 0, 4096, problems);
  CheckRange({FIELD(schedule, group_size)}, 0, int64_t{1} << 24, problems);
  CheckReal({FIELD(schedule, in_flight_cap)}, 0, 1e9, Least::kIncluded, problems);
  CheckRange({FIELD(sample, length)}, 0, kSize, problems);
  CheckRange({FIELD(schedule, send_slots)}, 1, 4096, problems);
  CheckReal({FIELD(model, dropout),
             Real{"data.hold_out.fraction", job.data().hold_out().has_fraction(), job.data().hold_out().fraction()}},
            0, 1, Least::kIncluded, problems);
  CheckReal({FIELD(optimizer, beta1), FIELD(optimizer, beta2)}, 0, 1, Least::kIncluded, problems);
  CheckReal({FIELD(model, norm_epsilon), FIELD(optimizer, epsilon), FIELD(optimizer, learning_rate)}, 0, infinity,
            Least::kExcluded, problems);
  CheckReal({FIELD(model, rope_theta), FIELD(optimizer, minimum_learning_rate), FIELD(optimizer, weight_decay),
             FIELD(optimizer, clip_norm), FIELD(sample, temperature), FIELD(watchdog, seconds),
             FIELD(checkpoint, every_minutes)},
            0, infinity, Least::kIncluded, problems);
  CheckRankOrder(job.layout(), problems);
  for (int i = 0; i < job.layout().memory_limit_size(); ++i) {
    if (ParseBytes(job.layout().memory_limit(i))) continue;
    problems.Add(
        absl::StrCat("layout.memory_limit.", i),
        absl::StrCat("\"", job.layout().memory_limit(i), "\" is no size; write 1500MB, 2GiB or a number of bytes"));
  }
}

#undef FIELD

void CheckTogether(JobConfig& config, Problems& problems) {
  CheckModel(config.model, problems);
  CheckData(config.data, problems);
  CheckCheckpoint(config.checkpoint, problems);
  CheckBatch(config.training, config.layout, problems);
  CheckGrid(config, problems);
  if (int64_t{config.layout.pp} * config.layout.chunks > kStagesMax) {
    problems.Add("layout.pp", absl::StrCat("pp x chunks must be at most ", kStagesMax));
    return;
  }
  CheckLists(config, problems);
  if (problems.empty()) CheckSchedule(config, problems);
  if (config.optimizer.minimum_learning_rate > config.optimizer.learning_rate) {
    problems.Add("optimizer.minimum_learning_rate",
                 absl::StrCat("minimum_learning_rate ", config.optimizer.minimum_learning_rate,
                              " is above learning_rate ", config.optimizer.learning_rate));
  }
}

void CheckAgainstGraph(const proto::Job& job, JobConfig& config, Problems& problems) {
  const int64_t nodes = static_cast<int64_t>(config.graph.nodes.size());
  if (config.layout.stages() > nodes) {
    problems.Add("layout.pp", absl::StrCat(config.layout.stages(), " stages are more than the model's ", nodes,
                                           " layers; at most ", nodes / config.layout.chunks, " ranks are possible"));
    return;
  }
  if (absl::Status split = CheckTensorParallel(config.graph, {.size = config.layout.tp}); !split.ok()) {
    problems.Add("layout.tp", std::string(split.message()));
  }
  if (config.training.sequence > config.graph.max_sequence) {
    problems.Add("training.sequence", absl::StrCat("sequence ", config.training.sequence, " is longer than the ",
                                                   config.graph.max_sequence, " positions of the model"));
  }
  if (!config.data.text.empty() && config.graph.vocabulary < 256) {
    problems.Add("model.vocabulary", absl::StrCat("text is read as bytes: the vocabulary must be at least 256, not ",
                                                  config.graph.vocabulary));
  }
  const auto check_token = [&](absl::string_view field, const std::optional<int64_t>& token) {
    if (!token || (*token >= 0 && *token < config.graph.vocabulary)) return;
    problems.Add(field, absl::StrCat(*token, " is no token id of a vocabulary of ", config.graph.vocabulary));
  };
  check_token("data.documents.end_token", config.data.end_token);
  check_token("data.ignore_index", config.data.ignore_index);
  CheckCuts(job.layout(), config, problems);
}

}  // namespace sluice
