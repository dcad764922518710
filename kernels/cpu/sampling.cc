#include "kernels/cpu/sampling.h"

#include <algorithm>
#include <cmath>

#include "base/philox.h"
#include "kernels/operation_check.h"

namespace sluice::cpu {
namespace {

struct Candidate {
  float logit;  // then its weight: exp((logit - largest) / temperature)
  int32_t token;
  friend bool operator<(const Candidate& a, const Candidate& b) {  // the likelier one first, the lower of equals
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  }
};

void Penalize(float penalty, int64_t vocabulary, const uint32_t* seen, float* logits) {
  if (penalty == 1.0f) return;
  for (int64_t word = 0; word * 32 < vocabulary; ++word) {
    for (uint32_t bits = seen[word]; bits != 0; bits &= bits - 1) {
      float& logit = logits[word * 32 + __builtin_ctz(bits)];
      logit = logit > 0 ? logit / penalty : logit * penalty;
    }
  }
}

// The fewest candidates, likeliest first, that have `share` of the weight of all `count`. Sorted as far as needed.
int64_t Nucleus(Candidate* candidates, int64_t count, double share) {
  constexpr int64_t kFirst = 64;  // of which most texts' next tokens are one
  double all = 0;
  for (int64_t i = 0; i < count; ++i) all += candidates[i].logit;
  double sum = 0;
  for (int64_t sorted = 0, i = 0; sorted < count;) {
    const int64_t end = std::min(count, std::max(kFirst, 2 * sorted));
    std::partial_sort(candidates + sorted, candidates + end, candidates + count);
    for (sorted = end; i < sorted; ++i) {
      sum += candidates[i].logit;
      if (sum >= share * all) return i + 1;
    }
  }
  return count;
}

int32_t Draw(const SamplingRules& rules, int64_t position, const float* logits, int64_t vocabulary) {
  const float* const best = std::max_element(logits, logits + vocabulary);
  if (rules.temperature <= 0) return static_cast<int32_t>(best - logits);
  auto* candidates = reinterpret_cast<Candidate*>(
      ThreadScratch(ScratchSlot::kOperation, vocabulary * static_cast<int64_t>(sizeof(Candidate))));
  for (int64_t i = 0; i < vocabulary; ++i) candidates[i] = {logits[i], static_cast<int32_t>(i)};
  int64_t count = vocabulary;
  if (rules.top_k > 0 && rules.top_k < vocabulary) {
    count = rules.top_k;
    std::partial_sort(candidates, candidates + count, candidates + vocabulary);
  }
  for (int64_t i = 0; i < count; ++i) {
    candidates[i].logit = std::exp((candidates[i].logit - *best) / rules.temperature);
  }
  if (rules.top_p < 1) count = Nucleus(candidates, count, rules.top_p);
  double all = 0;
  for (int64_t i = 0; i < count; ++i) all += candidates[i].logit;
  const auto sample = static_cast<uint32_t>(rules.sample);
  const PhiloxBlock words = RandomWords(rules.seed, HashName("sample"), 0, sample, static_cast<uint64_t>(position));
  double rest = UnitFloat(words[0]) * all;
  for (int64_t i = 0; i < count; ++i) {
    rest -= candidates[i].logit;
    if (rest < 0) return candidates[i].token;
  }
  return static_cast<int32_t>(best - logits);  // rounding left a crumb, or the logits aren't numbers
}

}  // namespace

void SampleTokens(Team& team, const SampleTokensArgs& args) {
  CheckArguments(args);
  const int64_t vocabulary = args.logits.columns(), sequences = args.rules.rows();
  team.ParallelFor(args.logits.rows(), [&](int64_t row) {
    const int32_t sequence = args.sequences.as<int32_t>()[row];
    CHECK(sequence >= 0 && sequence < sequences) << "sequence " << sequence << " of " << sequences;
    const SamplingRules& rules = args.rules.as<const SamplingRules>()[sequence];
    auto* seen = args.seen.as<uint32_t>() + sequence * args.seen.columns();
    float* logits = args.logits.as<float>() + row * vocabulary;
    Penalize(rules.repetition_penalty, vocabulary, seen, logits);
    const int32_t token = Draw(rules, args.positions.as<int32_t>()[row], logits, vocabulary);
    seen[token / 32] |= 1u << (token % 32);
    args.tokens.as<int32_t>()[row] = token;
  });
}

}  // namespace sluice::cpu
