#include "runtime/trainer/fingerprints.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "base/philox.h"

namespace sluice {
namespace {

std::string Hex(uint64_t hash) { return absl::StrCat(absl::Hex(hash, absl::kZeroPad16)); }

std::string PlanHash(const Plan& plan) {
  std::string text;
  for (const Program* program : {&plan.training, &plan.evaluation, &plan.generation}) {
    absl::StrAppend(&text, program->name, "\n", ToText(program->ranks));
    for (const auto& list : program->ranks) {
      for (const Action& a : list) absl::StrAppend(&text, a.queue.value(), " ", a.slot, " ", a.stash, " ", a.collective, ";");
    }
  }
  for (const StagePlan& stage : plan.stages) {
    absl::StrAppend(&text, "\n", stage.id.value(), " ", stage.copy, " ", stage.rank.value(), " ", stage.begin, " ",
                    stage.end, " ", static_cast<int>(stage.recompute));
  }
  absl::StrAppend(&text, "\n", plan.job.layout.algorithms_text);
  return Hex(HashName(text));
}

}  // namespace

std::string BuildFingerprint() {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  return bytes.empty() ? "unknown" : Hex(HashName(bytes));
}

std::string DataFingerprint(const TokenStream& stream) {
  constexpr int64_t kWindows = 64, kTokens = 256;
  std::vector<int32_t> tokens(kTokens), pieces(kTokens);
  std::string text = absl::StrCat(stream.size());
  for (int64_t window = 0; window < kWindows && stream.size() > 0; ++window) {
    const int64_t offset = std::max<int64_t>(0, (stream.size() - kTokens) * window / (kWindows - 1));
    const auto count = static_cast<size_t>(std::min(kTokens, stream.size() - offset));
    stream.Read(offset, absl::MakeSpan(tokens).first(count), absl::MakeSpan(pieces).first(count));
    text.append(reinterpret_cast<const char*>(tokens.data()), count * sizeof(int32_t));
  }
  return absl::StrCat(stream.size(), " tokens, ", Hex(HashName(text)));
}

std::vector<Fingerprint> FingerprintsOf(const Plan& plan, const Dataset& dataset, const std::string& program) {
  return {{"program", absl::StrCat(program, ", build ", BuildFingerprint())},
          {"job", Hex(plan.job.fingerprint)},
          {"training data", DataFingerprint(dataset.training())},
          {"held-out data", DataFingerprint(dataset.held_out())},
          {"plan", PlanHash(plan)}};
}

}  // namespace sluice
