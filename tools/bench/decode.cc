// Decoding beside the memory's rate, with random weights: docs/benchmarks/decode.md has its definitions and numbers.
//   decode [--bf16] [--threads N] [--pp N] [--groups N] [--layers N]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/world.h"
#include "kernels/cpu/matmul_rate.h"
#include "runtime/generator/generator.h"
#include "stages/families/llama.h"
#include "stages/parameters.h"

namespace sluice {
namespace {

constexpr int64_t kPrompt = 16, kAnswer = 96;
constexpr int kRepeats = 3;

// SmolLM2-135M.
LayerGraph Model(int64_t layers) {
  return *LlamaGraph({.layers = layers,
                      .channels = 576,
                      .heads = 9,
                      .kv_heads = 3,
                      .width = 1536,
                      .vocabulary = 49152,
                      .max_sequence = 8192,
                      .tied = true});
}

// What decoding a token reads: all weights once, of the table of embeddings only as the head's.
int64_t WeightBytes(const LayerGraph& graph, Precision precision) {
  int64_t bytes = 0;
  for (size_t node = 0; node < graph.nodes.size(); ++node) {
    if (graph.nodes[node].kind == LayerKind::kEmbedding) continue;
    for (const ParameterSpec& spec : Parameters(graph, node)) {
      bytes += spec.elements() * (spec.packed && precision == Precision::kBF16 ? 2 : 4);
    }
  }
  return bytes;
}

// The best of some runs, of answers to as many prompts as there are places.
struct Rates {
  double wall = 0;  // tokens a second
  double cpu = 0;   // ... of the process' time on processors
};
Rates RatesOf(TokenGenerator& generator) {
  const GenerationPlan& plan = *generator.plan().generating;
  std::vector<GenerationRequest> requests(plan.groups * plan.group_sequences);
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].prompt.assign(kPrompt, static_cast<int32_t>(i));
    requests[i].tokens_max = kAnswer + 1;  // the first is the prefill's
  }
  Rates best;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    const GenerationTimes before = generator.times();
    std::clock_t began = 0;  // once all prompts have been taken in
    CHECK_OK(generator.Generate(requests, [&](size_t request, absl::Span<const int32_t>) {
      if (began == 0 && request + 1 == requests.size()) began = std::clock();
      return true;
    }));
    const double cpu_seconds = static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
    const GenerationTimes& after = generator.times();
    const auto tokens = static_cast<double>(after.decoded_tokens - before.decoded_tokens);
    best.wall = std::max(best.wall, tokens * kSecond / static_cast<double>(after.decode - before.decode));
    best.cpu = std::max(best.cpu, tokens / cpu_seconds);
  }
  return best;
}

int Flag(int argc, char** argv, absl::string_view name, int otherwise) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (argv[i] == name) return std::atoi(argv[i + 1]);
  }
  return otherwise;
}

void Run(int argc, char** argv) {
  const bool bf16 =
      std::any_of(argv + 1, argv + argc, [](const char* flag) { return absl::string_view(flag) == "--bf16"; });
  const int threads = Flag(argc, argv, "--threads", 1), pp = Flag(argc, argv, "--pp", 1);
  GenerationSettings settings{.graph = Model(Flag(argc, argv, "--layers", 30)),
                              .precision = bf16 ? Precision::kBF16 : Precision::kF32,
                              .groups = Flag(argc, argv, "--groups", 1),
                              .context = kPrompt + kAnswer + 1};
  settings.layout.pp = pp;
  const auto world = NewRealWorld();
  const int64_t bytes = WeightBytes(settings.graph, settings.precision);
  const double rate = cpu::MeasureMemoryRate(world.get(), bytes, threads * pp).read * threads * pp;
  std::printf(
      "%.0f MB of weights, %s, %d x %d threads, %d groups; memory %.1f GB/s: floor %.1f rounds of all groups/s\n",
      1e-6 * static_cast<double>(bytes), bf16 ? "bf16" : "f32", pp, threads, settings.groups, 1e-9 * rate,
      rate / static_cast<double>(bytes) / settings.groups);
  for (const int64_t batch : {1, 2, 4, 8, 16}) {
    settings.group_sequences = batch;
    auto generator =
        TokenGenerator::Create(world.get(), *MakeGenerationPlan(settings), {.threads_per_rank = threads}, nullptr);
    CHECK_OK(generator.status());
    const Rates rates = RatesOf(**generator);
    const auto share = [&](double tokens_per_second, double memory) {
      return 100 * tokens_per_second / static_cast<double>(batch) * static_cast<double>(bytes) / memory;
    };
    std::printf("batch %2lld: %8.1f tokens/s, %5.1f %% of the memory's floor; by time on processors %5.1f %%\n",
                static_cast<long long>(batch), rates.wall, share(rates.wall, rate),
                share(rates.cpu, rate / (threads * pp)));
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) { sluice::Run(argc, argv); }
