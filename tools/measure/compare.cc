#include "tools/measure/compare.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"

namespace sluice::tools {
namespace {

constexpr size_t kRoundsForMedians = 3;

// A round's part of the merged samples.
void Append(const std::vector<double>& samples, bool medians, std::vector<double>* all) {
  if (samples.empty()) return;
  if (medians) return all->push_back(Median(samples));
  all->insert(all->end(), samples.begin(), samples.end());
}

BenchedOperation* Find(std::vector<BenchedOperation>& operations, const BenchedOperation& like) {
  const auto found = std::find_if(operations.begin(), operations.end(), [&](const BenchedOperation& operation) {
    return operation.operation == like.operation && operation.shape == like.shape;
  });
  return found == operations.end() ? nullptr : &*found;
}

}  // namespace

Estimate EstimateOf(absl::Span<const double> samples) {
  CHECK(!samples.empty());
  constexpr double kSigmas = 3, kErrorOfMedian = 1.2533, kDeviationOfMad = 1.4826;
  const double median = Median({samples.begin(), samples.end()});
  std::vector<double> deviations;
  for (const double sample : samples) deviations.push_back(std::abs(sample - median));
  const double deviation = kDeviationOfMad * Median(std::move(deviations));
  return {median, kSigmas * kErrorOfMedian * deviation / std::sqrt(static_cast<double>(samples.size()))};
}

Change ChangeOf(std::string what, absl::Span<const double> before, absl::Span<const double> after,
                double smallest_noise) {
  const Estimate a = EstimateOf(before), b = EstimateOf(after);
  return {.what = std::move(what),
          .before_ms = a.median,
          .after_ms = b.median,
          .noise_ms = std::max(std::hypot(a.error, b.error), smallest_noise * a.median)};
}

std::vector<Change> Compare(const BenchResult& before, const BenchResult& after, double smallest_noise) {
  std::map<std::string, std::pair<const std::vector<double>*, const std::vector<double>*>> samples;
  for (const BenchedOperation& operation : before.operations) samples[TitleOf(operation)].first = &operation.ms;
  for (const BenchedOperation& operation : after.operations) samples[TitleOf(operation)].second = &operation.ms;
  std::vector<Change> changes;
  for (const auto& [title, both] : samples) {
    static const std::vector<double> kNone = {0};
    const auto or_none = [](const std::vector<double>* ms) { return ms == nullptr || ms->empty() ? &kNone : ms; };
    changes.push_back(ChangeOf(title, *or_none(both.first), *or_none(both.second), smallest_noise));
  }
  std::stable_sort(changes.begin(), changes.end(), [](const Change& a, const Change& b) {
    return std::abs(a.difference_ms()) > std::abs(b.difference_ms());
  });
  changes.insert(changes.begin(), ChangeOf("step", before.step_ms, after.step_ms, smallest_noise));
  return changes;
}

absl::Status CheckComparable(const BenchResult& before, const BenchResult& after, const std::string& file) {
  std::vector<std::string> differences;
  const auto compare = [&](absl::string_view what, absl::string_view found, absl::string_view here) {
    if (found != here) differences.push_back(absl::StrCat(what, " is ", found, " there and ", here, " here"));
  };
  compare("the processor", before.processor, after.processor);
  compare("the number of threads", absl::StrCat(before.threads), absl::StrCat(after.threads));
  const std::map<std::string, std::string> job(before.job.begin(), before.job.end());
  for (const auto& [name, value] : after.job) {
    const auto found = job.find(name);
    compare(absl::StrCat("the job's ", name), found == job.end() ? "not known" : found->second, value);
  }
  if (differences.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(file, ": cannot be compared with this run: ", absl::StrJoin(differences, ", "),
                   "; measure both on one machine with one job: sluice bench JOB -o FILE"));
}

BenchResult MergeRounds(absl::Span<const BenchResult> rounds) {
  CHECK(!rounds.empty());
  const bool medians = rounds.size() >= kRoundsForMedians;
  BenchResult merged = rounds.back();
  merged.step_ms.clear();
  for (BenchedOperation& operation : merged.operations) operation.ms.clear();
  for (const BenchResult& round : rounds) {
    Append(round.step_ms, medians, &merged.step_ms);
    for (const BenchedOperation& operation : round.operations) {
      if (BenchedOperation* const into = Find(merged.operations, operation)) Append(operation.ms, medians, &into->ms);
    }
  }
  return merged;
}

std::string TitleOf(const BenchedOperation& operation) {
  const ProductShape& shape = operation.shape;
  if (shape.products == Products::kNone) return operation.operation;
  return absl::StrCat(operation.operation, " ", shape.m, " x ", shape.n, " x ", shape.k, " ", Name(shape.compute));
}

}  // namespace sluice::tools
