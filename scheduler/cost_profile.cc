#include "scheduler/cost_profile.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sluice {
namespace {

// What lies before the place `numerator` / `denominator` (counted in stages) of a quantity that is even in each stage.
template <class Value>
int64_t Before(const std::vector<StageProfile>& stages, int64_t numerator, int64_t denominator, Value value) {
  const int64_t whole = numerator / denominator, rest = numerator % denominator;
  int64_t sum = 0;
  for (int64_t s = 0; s < whole; ++s) sum += value(stages[s]);
  if (rest == 0) return sum;
  return sum + static_cast<int64_t>(static_cast<double>(value(stages[whole])) * static_cast<double>(rest) /
                                    static_cast<double>(denominator));
}

// The border of the old cut whose messages those at the place `numerator` / `denominator` are taken to be like: the
// next one above, or the last one there is.
size_t LikeBorder(size_t stages, int64_t numerator, int64_t denominator) {
  const auto above = static_cast<size_t>((numerator + denominator - 1) / denominator);
  return std::max<size_t>(1, std::min(above, stages - 1));
}

}  // namespace

CostProfile Redivide(const CostProfile& profile, int stages) {
  const auto& from = profile.stages;
  CHECK(!from.empty() && stages > 0);
  if (from.size() == static_cast<size_t>(stages)) return profile;
  CostProfile result = profile;
  result.stages.assign(stages, {});
  const auto count = static_cast<int64_t>(from.size());
  for (int s = 0; s < stages; ++s) {
    StageProfile& to = result.stages[s];
    const auto part = [&](auto value) {
      return Before(from, (s + 1) * count, stages, value) - Before(from, s * count, stages, value);
    };
    to.costs.forward_ns = part([](const StageProfile& stage) { return stage.costs.forward_ns; });
    to.costs.input_gradient_ns = part([](const StageProfile& stage) { return stage.costs.input_gradient_ns; });
    to.costs.weight_gradient_ns = part([](const StageProfile& stage) { return stage.costs.weight_gradient_ns; });
    to.costs.backward_ns = part([](const StageProfile& stage) { return stage.costs.backward_ns; });
    to.costs.optimizer_ns = part([](const StageProfile& stage) { return stage.costs.optimizer_ns; });
    to.stash_bytes = part([](const StageProfile& stage) { return stage.stash_bytes; });
    to.gradient_stash_bytes = part([](const StageProfile& stage) { return stage.gradient_stash_bytes; });
    to.fixed_bytes = part([](const StageProfile& stage) { return stage.fixed_bytes; });
    to.costs.activation_bytes = from[LikeBorder(from.size(), (s + 1) * count, stages) - 1].costs.activation_bytes;
    to.costs.gradient_bytes =
        from[std::min(LikeBorder(from.size(), s * count, stages), from.size() - 1)].costs.gradient_bytes;
  }
  return result;
}

Costs CostsOf(const CostProfile& profile) {
  Costs costs{.transfer_latency_ns = profile.transfer_latency_ns,
              .transfer_bytes_per_second = profile.transfer_bytes_per_second,
              .collective_ns = profile.collective_ns};
  bool any_bytes = false;
  for (size_t s = 0; s < profile.stages.size(); ++s) {
    const StageProfile& stage = profile.stages[s];
    StageBytes bytes{.fixed = stage.fixed_bytes};
    const auto slot = [&bytes](Pool pool) -> int64_t& { return bytes.slot[static_cast<size_t>(pool)]; };
    slot(Pool::kStash) = stage.stash_bytes;
    slot(Pool::kGradientStash) = stage.gradient_stash_bytes;
    if (s > 0) {
      slot(Pool::kInput) = profile.stages[s - 1].costs.activation_bytes;
      slot(Pool::kInputGradient) = stage.costs.gradient_bytes;
    }
    if (s + 1 < profile.stages.size()) {
      slot(Pool::kOutput) = stage.costs.activation_bytes;
      slot(Pool::kOutputGradient) = profile.stages[s + 1].costs.gradient_bytes;
    }
    any_bytes |= bytes.fixed != 0 || *std::max_element(bytes.slot.begin(), bytes.slot.end()) != 0;
    costs.stages.push_back(stage.costs);
    costs.stage_bytes.push_back(bytes);
  }
  if (!any_bytes) costs.stage_bytes.clear();
  return costs;
}

std::vector<PassCosts> PassCostsOf(const CostProfile& profile) {
  const double rate = profile.transfer_bytes_per_second;
  std::vector<PassCosts> passes;
  for (size_t s = 0; s < profile.stages.size(); ++s) {
    const StageProfile& stage = profile.stages[s];
    const auto message = static_cast<double>(std::max(s + 1 < profile.stages.size() ? stage.costs.activation_bytes : 0,
                                                      s > 0 ? stage.costs.gradient_bytes : 0));
    PassCosts pass{
        .forward_ns = stage.costs.forward_ns,
        .input_gradient_ns = stage.costs.input_gradient_ns,
        .weight_gradient_ns = stage.costs.weight_gradient_ns,
        .transfer_ns = profile.transfer_latency_ns + (rate > 0 ? static_cast<int64_t>(1e9 * message / rate) : 0)};
    if (stage.stash_bytes > 0) {
      pass.forward_bytes = stage.stash_bytes;  // a stash slot stays whole until W
      pass.weight_bytes = stage.stash_bytes;
    }
    passes.push_back(pass);
  }
  return passes;
}

absl::Status CheckDuration(const CostProfile& profile, int64_t micro_batches) {
  constexpr double kLongest = 4e15;  // ns; leaves room for ranks that are a thousand times slower
  double all = static_cast<double>(profile.collective_ns) * 2;
  for (const StageProfile& stage : profile.stages) {
    const double rate = profile.transfer_bytes_per_second;
    const auto bytes =
        static_cast<double>(stage.costs.activation_bytes) + static_cast<double>(stage.costs.gradient_bytes);
    const double pass = static_cast<double>(stage.costs.forward_ns) + static_cast<double>(stage.costs.backward_ns) +
                        static_cast<double>(stage.costs.input_gradient_ns) +
                        static_cast<double>(stage.costs.weight_gradient_ns) +
                        2.0 * static_cast<double>(profile.transfer_latency_ns) + (rate > 0 ? 1e9 * bytes / rate : 0);
    all += pass * static_cast<double>(micro_batches) + static_cast<double>(stage.costs.optimizer_ns);
  }
  if (all <= kLongest) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the actions of one step would take ", all / 1e9,
                                                 " seconds in all, more than can be counted in nanoseconds (",
                                                 kLongest / 1e9, "): make times or micro-batches smaller"));
}

}  // namespace sluice
