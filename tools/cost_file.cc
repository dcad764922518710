#include "tools/cost_file.h"

#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/time.h"
#include "proto/costs.pb.h"
#include "proto/text.h"

namespace sluice::tools {
namespace {

constexpr int kStagesMax = 1 << 20;
constexpr double kMillisecondsMax = 1e9;
constexpr int64_t kBytesMax = int64_t{1} << 50;

class Reader {
 public:
  explicit Reader(const TextLocations& locations) : locations_(locations) {}

  absl::StatusOr<CostProfile> Read(const proto::CostProfile& from) {
    if (from.has_format_version() && from.format_version() != 1) {
      Fail("format_version", absl::StrCat("this program reads version 1, not ", from.format_version()));
    }
    if (from.stage_size() == 0) Fail("stage", "a cost profile has at least one stage { ... }");
    CostProfile profile;
    for (int i = 0; i < from.stage_size(); ++i) Append(from.stage(i), absl::StrCat("stage.", i, "."), profile);
    for (size_t s = 1; s < profile.stages.size(); ++s) {
      int64_t& bytes = profile.stages[s].costs.gradient_bytes;
      if (bytes < 0) bytes = profile.stages[s - 1].costs.activation_bytes;
    }
    if (!profile.stages.empty() && profile.stages[0].costs.gradient_bytes < 0)
      profile.stages[0].costs.gradient_bytes = 0;
    profile.collective_ns = Time(from.collective_ms(), "collective_ms");
    profile.transfer_latency_ns = Time(from.link().latency_ms(), "link.latency_ms");
    profile.transfer_bytes_per_second = from.link().bytes_per_second();
    if (from.link().has_bytes_per_second() &&
        !(std::isfinite(from.link().bytes_per_second()) && from.link().bytes_per_second() >= 1)) {
      Fail("link.bytes_per_second", "expected a rate of at least 1; leave it out for no limit");
    }
    if (!error_.ok()) return error_;
    return profile;
  }

 private:
  void Append(const proto::StageCost& from, const std::string& at, CostProfile& profile) {
    StageProfile stage;
    StageCosts& costs = stage.costs;
    costs.forward_ns = Time(from.forward_ms(), at + "forward_ms");
    costs.input_gradient_ns = Time(from.input_gradient_ms(), at + "input_gradient_ms");
    costs.weight_gradient_ns = Time(from.weight_gradient_ms(), at + "weight_gradient_ms");
    costs.backward_ns = from.has_backward_ms() ? Time(from.backward_ms(), at + "backward_ms")
                                               : costs.input_gradient_ns + costs.weight_gradient_ns;
    costs.optimizer_ns = Time(from.optimizer_ms(), at + "optimizer_ms");
    costs.activation_bytes = Bytes(from.activation_bytes(), at + "activation_bytes");
    costs.gradient_bytes = from.has_gradient_bytes() ? Bytes(from.gradient_bytes(), at + "gradient_bytes") : -1;
    stage.stash_bytes = Bytes(from.stash_bytes(), at + "stash_bytes");
    stage.gradient_stash_bytes = Bytes(from.gradient_stash_bytes(), at + "gradient_stash_bytes");
    stage.fixed_bytes = Bytes(from.fixed_bytes(), at + "fixed_bytes");
    const int count = from.has_count() ? from.count() : 1;
    if (count < 1 || count > kStagesMax - static_cast<int>(profile.stages.size())) {
      return Fail(at + "count", absl::StrCat("expected at least 1 stage, and at most ", kStagesMax, " in all"));
    }
    profile.stages.insert(profile.stages.end(), count, stage);
  }

  int64_t Time(double milliseconds, const std::string& path) {
    if (milliseconds >= 0 && milliseconds <= kMillisecondsMax) return std::llround(milliseconds * kMillisecond);
    Fail(path, absl::StrCat("expected milliseconds from 0 to ", kMillisecondsMax, ", found ", milliseconds));
    return 0;
  }
  int64_t Bytes(int64_t bytes, const std::string& path) {
    if (bytes < 0 || bytes > kBytesMax) {
      Fail(path, absl::StrCat("expected bytes from 0 to ", kBytesMax, ", found ", bytes));
      return 0;
    }
    return bytes;
  }
  // The first failure stays.
  void Fail(const std::string& path, const std::string& what) {
    if (error_.ok()) error_ = absl::InvalidArgumentError(absl::StrCat(locations_.Prefix(path), path, ": ", what));
  }

  const TextLocations& locations_;
  absl::Status error_;
};

}  // namespace

absl::StatusOr<CostProfile> ReadCostFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  proto::CostProfile message;
  ASSIGN_OR_RETURN(const TextLocations locations, ParseText(text, path, message));
  return Reader(locations).Read(message);
}

}  // namespace sluice::tools
