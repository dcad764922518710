// The Stage suite for LayerStages on the CPU.
#include "kernels/cpu/cpu_device.h"
#include "stages/families/gpt2.h"
#include "stages/families/llama.h"
#include "stages/layer_stage.h"
#include "tests/conformance/stage_conformance.h"

namespace sluice {
namespace {

StagesFactory Layers(const std::string& name, const LayerGraph& graph, Precision precision,
                     Recomputation recomputation) {
  return {name, [=] {
            StagesUnderTest t{.rows = 2, .sequence = 9, .vocabulary = graph.vocabulary};
            t.world = NewRealWorld();
            t.device = cpu::NewCpuDevice(t.world.get(), {.threads = 2, .poison_fresh_memory = true});
            t.stream = t.device->NewStream("compute");
            const StageOptions options{.precision = precision,
                                       .recomputation = recomputation,
                                       .backward = BackwardForm::kSplit,
                                       .rows = t.rows,
                                       .sequence = t.sequence,
                                       .micro_batches = 2,
                                       .gradient_groups = 2,
                                       .stash_slots = 2,
                                       .gradient_stash_slots = 2,
                                       .seed = 3};
            const size_t cut = 3, end = graph.nodes.size();
            for (const NodeRange& range : {NodeRange{0, cut}, NodeRange{cut, end}}) {
              const StageId id(static_cast<int64_t>(t.stages.size()));
              auto stage = LayerStage::Create(t.device.get(), t.stream.get(), graph, id, range, options);
              if (!stage.ok()) ADD_FAILURE() << stage.status();
              t.message_bytes = std::max(t.message_bytes, (*stage)->memory().input_message);
              t.stages.push_back(*std::move(stage));
            }
            return t;
          }};
}

std::vector<StagesFactory> Factories() {
  const LayerGraph gpt2 =
      Gpt2Graph({.layers = 2, .channels = 20, .heads = 4, .vocabulary = 31, .positions = 9, .dropout = 0.1f}).value();
  const LayerGraph llama =
      LlamaGraph(
          {.layers = 2, .channels = 16, .heads = 4, .kv_heads = 2, .width = 24, .vocabulary = 31, .max_sequence = 9})
          .value();
  return {Layers("Gpt2", gpt2, Precision::kF32, Recomputation::kNone),
          Layers("LlamaBf16", llama, Precision::kBF16, Recomputation::kFull)};
}

INSTANTIATE_TEST_SUITE_P(Cpu, StageConformance, testing::ValuesIn(Factories()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
