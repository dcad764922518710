#include "runtime/config/layer_profile.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/philox.h"
#include "base/status.h"
#include "base/time.h"
#include "google/protobuf/text_format.h"
#include "proto/profile.pb.h"
#include "proto/text.h"
#include "stages/graph_io.h"

namespace sluice {
namespace {

constexpr double kMillisecondsMax = 1e9;

std::string RecomputeOf(const std::vector<Recomputation>& stages) {
  static constexpr const char* kNames[] = {"none", "selective", "full"};
  const bool alike = std::equal(stages.begin() + 1, stages.end(), stages.begin());
  std::vector<absl::string_view> names;
  for (const Recomputation recompute : stages) names.push_back(kNames[static_cast<size_t>(recompute)]);
  if (alike) names.resize(1);
  return absl::StrJoin(names, ",");
}

double ToMilliseconds(int64_t ns) { return static_cast<double>(ns) / kMillisecond; }

class Reader {
 public:
  explicit Reader(const TextLocations& locations) : locations_(locations) {}

  absl::StatusOr<LayerProfile> Read(const proto::Profile& from) {
    if (from.has_format_version() && from.format_version() != 1) {
      Fail("format_version", absl::StrCat("this program reads version 1, not ", from.format_version(),
                                          "; measure again with sluice profile"));
    }
    if (!from.has_job()) Fail("job", "a profile says what it was measured for: job { ... }");
    if (from.layer_size() == 0) Fail("layer", "a profile has a layer { ... } for each node of the model");
    const proto::ProfiledJob& job = from.job();
    LayerProfile profile{.processor = from.processor(),
                         .model = job.model(),
                         .graph_hash = job.graph_hash(),
                         .rows = job.rows(),
                         .sequence = job.sequence(),
                         .precision = job.precision(),
                         .threads_per_rank = static_cast<int>(
                             std::clamp<int64_t>(job.threads_per_rank(), 0, std::numeric_limits<int>::max())),
                         .recompute = job.recompute(),
                         .tp = job.has_tp() ? job.tp() : 1,
                         .sequence_parallel = job.sequence_parallel(),
                         .optimizer_ns_per_parameter = from.optimizer_ns_per_parameter(),
                         .hand_over_ns = Time(from.hand_over_ms(), "hand_over_ms")};
    if (!(profile.optimizer_ns_per_parameter >= 0 && profile.optimizer_ns_per_parameter <= 1e6)) {
      Fail("optimizer_ns_per_parameter", "expected nanoseconds from 0 to 1e6");
    }
    for (int i = 0; i < from.layer_size(); ++i) {
      const proto::ProfiledLayer& layer = from.layer(i);
      const std::string at = absl::StrCat("layer.", i, ".");
      profile.layers.push_back({layer.name(),
                                {.forward_ns = Time(layer.forward_ms(), at + "forward_ms"),
                                 .input_gradient_ns = Time(layer.input_gradient_ms(), at + "input_gradient_ms"),
                                 .weight_gradient_ns = Time(layer.weight_gradient_ms(), at + "weight_gradient_ms")}});
    }
    if (!error_.ok()) return error_;
    return profile;
  }

 private:
  int64_t Time(double milliseconds, const std::string& path) {
    if (milliseconds >= 0 && milliseconds <= kMillisecondsMax) return std::llround(milliseconds * kMillisecond);
    Fail(path, absl::StrCat("expected milliseconds from 0 to ", kMillisecondsMax, ", found ", milliseconds));
    return 0;
  }
  // The first failure stays.
  void Fail(const std::string& path, const std::string& what) {
    if (error_.ok()) error_ = absl::InvalidArgumentError(absl::StrCat(locations_.Prefix(path), path, ": ", what));
  }

  const TextLocations& locations_;
  absl::Status error_;
};

}  // namespace

LayerProfile EmptyProfileOf(const JobConfig& job) {
  LayerProfile profile{.model = job.graph.name,
                       .graph_hash = HashName(GraphToText(job.graph)),
                       .rows = job.training.rows_per_micro_batch(),
                       .sequence = job.training.sequence,
                       .precision = job.training.precision == Precision::kF32 ? "f32" : "bf16",
                       .threads_per_rank = std::max(1, job.layout.threads_per_rank),
                       .recompute = RecomputeOf(job.training.recompute),
                       .tp = job.layout.tp,
                       .sequence_parallel = job.layout.sequence_parallel};
  for (const Node& node : job.graph.nodes) profile.layers.push_back({.name = node.name});
  return profile;
}

absl::Status CheckFits(const LayerProfile& profile, const JobConfig& job) {
  const LayerProfile wanted = EmptyProfileOf(job);
  std::vector<std::string> differences;
  const auto compare = [&](absl::string_view what, const auto& found, const auto& here) {
    if (found != here) differences.push_back(absl::StrCat(what, " ", found, " (the job has ", here, ")"));
  };
  compare("model", profile.model, wanted.model);
  compare("layers", profile.layers.size(), wanted.layers.size());
  compare("rows of a micro-batch", profile.rows, wanted.rows);
  compare("sequence", profile.sequence, wanted.sequence);
  compare("precision", profile.precision, wanted.precision);
  compare("threads a rank", profile.threads_per_rank, wanted.threads_per_rank);
  compare("recomputation", profile.recompute, wanted.recompute);
  compare("tensor-parallel shards", profile.tp, wanted.tp);
  compare("sequence_parallel", profile.sequence_parallel, wanted.sequence_parallel);
  if (differences.empty() && profile.graph_hash != wanted.graph_hash) {
    differences.push_back("a model of the same name with other sizes");
  }
  if (differences.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "layout.profile: ", job.layout.profile, " was measured for another job: ", absl::StrJoin(differences, ", "),
      "; make it again with `sluice profile ", job.file, "`, or leave layout.profile out"));
}

std::string ToText(const LayerProfile& profile) {
  proto::Profile to;
  to.set_format_version(1);
  to.set_processor(profile.processor);
  proto::ProfiledJob& job = *to.mutable_job();
  job.set_model(profile.model);
  job.set_graph_hash(profile.graph_hash);
  job.set_rows(profile.rows);
  job.set_sequence(profile.sequence);
  job.set_precision(profile.precision);
  job.set_threads_per_rank(profile.threads_per_rank);
  job.set_recompute(profile.recompute);
  if (profile.tp > 1) job.set_tp(profile.tp);
  if (profile.sequence_parallel) job.set_sequence_parallel(true);
  for (const ProfiledLayer& from : profile.layers) {
    proto::ProfiledLayer& layer = *to.add_layer();
    layer.set_name(from.name);
    layer.set_forward_ms(ToMilliseconds(from.times.forward_ns));
    layer.set_input_gradient_ms(ToMilliseconds(from.times.input_gradient_ns));
    layer.set_weight_gradient_ms(ToMilliseconds(from.times.weight_gradient_ns));
  }
  to.set_optimizer_ns_per_parameter(profile.optimizer_ns_per_parameter);
  to.set_hand_over_ms(ToMilliseconds(profile.hand_over_ns));
  std::string text;
  google::protobuf::TextFormat::Printer().PrintToString(to, &text);
  return absl::StrCat("# Measured by sluice profile; a job reads it as layout { profile: \"this file\" }.\n", text);
}

absl::StatusOr<LayerProfile> LayerProfileFromText(absl::string_view text, const std::string& file) {
  proto::Profile from;
  ASSIGN_OR_RETURN(const TextLocations locations, ParseText(text, file, from));
  return Reader(locations).Read(from);
}

absl::StatusOr<LayerProfile> ReadLayerProfile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  return LayerProfileFromText(text, path);
}

}  // namespace sluice
