// What is pure in stages/: graphs, families, parameters, costs, and the layout of a stage's memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "stages/families/gpt2.h"
#include "stages/families/llama.h"
#include "stages/families/mlp.h"
#include "stages/layer_cost.h"
#include "stages/parameters.h"
#include "stages/stage_layout.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

LayerGraph SmallGpt2(float dropout = 0.1f) {
  return Gpt2Graph({.layers = 2, .channels = 12, .heads = 3, .vocabulary = 29, .positions = 16, .dropout = dropout})
      .value();
}

LayerGraph SmallLlama(bool tied = true) {
  return LlamaGraph({.layers = 2,
                     .channels = 12,
                     .heads = 4,
                     .kv_heads = 2,
                     .head_size = 4,
                     .width = 20,
                     .vocabulary = 29,
                     .max_sequence = 16,
                     .tied = tied})
      .value();
}

// --- Families and parameters ---

TEST(Families, Gpt2PresetsHaveThePublishedNumberOfParameters) {
  const std::vector<std::pair<const char*, int64_t>> published = {
      {"124M", 124'439'808}, {"355M", 354'823'168}, {"774M", 774'030'080}, {"1558M", 1'557'611'200}};
  for (const auto& [name, count] : published) {
    EXPECT_EQ(ParameterCount(Gpt2Graph(Gpt2Preset(name).value()).value()), count) << name;
  }
  EXPECT_THAT(Gpt2Preset("125M").status().message(), HasSubstr("124M, 355M, 774M and 1558M"));
}

TEST(Families, LlamaSizesGiveThePublishedNumberOfParameters) {
  const LlamaSizes llama2_7b{.layers = 32, .channels = 4096, .heads = 32, .vocabulary = 32000};
  EXPECT_EQ(ParameterCount(LlamaGraph(llama2_7b).value()), 6'738'415'616);  // its width follows the 8/3 rule
  const LlamaSizes tiny{.layers = 22, .channels = 2048, .heads = 32, .kv_heads = 4, .width = 5632, .vocabulary = 32000};
  EXPECT_EQ(ParameterCount(LlamaGraph(tiny).value()), 1'100'048'384);
}

std::vector<std::string> NamesOf(const LayerGraph& graph, size_t node) {
  std::vector<std::string> names;
  for (const ParameterSpec& spec : Parameters(graph, node)) names.push_back(spec.name);
  return names;
}

TEST(Families, ParametersHaveTheNamesOfTheEcosystem) {
  const LayerGraph gpt2 = SmallGpt2();
  EXPECT_THAT(NamesOf(gpt2, 0), ElementsAre("wte.weight", "wpe.weight"));
  EXPECT_THAT(NamesOf(gpt2, 3), ElementsAre("h.1.ln_1.weight", "h.1.ln_1.bias", "h.1.attn.c_attn.weight",
                                            "h.1.attn.c_attn.bias", "h.1.attn.c_proj.weight", "h.1.attn.c_proj.bias"));
  EXPECT_THAT(NamesOf(gpt2, 4), ElementsAre("h.1.ln_2.weight", "h.1.ln_2.bias", "h.1.mlp.c_fc.weight",
                                            "h.1.mlp.c_fc.bias", "h.1.mlp.c_proj.weight", "h.1.mlp.c_proj.bias"));
  EXPECT_THAT(NamesOf(gpt2, 5), ElementsAre("ln_f.weight", "ln_f.bias"));
  EXPECT_THAT(NamesOf(gpt2, 6), ElementsAre("wte.weight"));
  const LayerGraph llama = SmallLlama(/*tied=*/false);
  EXPECT_THAT(NamesOf(llama, 1),
              ElementsAre("model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.qkv_proj.weight",
                          "model.layers.0.self_attn.o_proj.weight"));
  EXPECT_THAT(NamesOf(llama, 2),
              ElementsAre("model.layers.0.post_attention_layernorm.weight", "model.layers.0.mlp.gate_up_proj.weight",
                          "model.layers.0.mlp.down_proj.weight"));
  EXPECT_THAT(NamesOf(llama, 6), ElementsAre("lm_head.weight"));
}

TEST(Parameters, OnlyMatricesDecayAndProjectionsBeginSmaller) {
  const LayerGraph graph = SmallGpt2();
  for (size_t node = 0; node < graph.nodes.size(); ++node) {
    for (const ParameterSpec& spec : Parameters(graph, node)) {
      EXPECT_EQ(spec.decay, spec.rows > 1) << spec.name;
      const bool projection = spec.name.find("c_proj.weight") != std::string::npos;
      if (spec.decay) {
        EXPECT_FLOAT_EQ(spec.deviation, projection ? 0.01f : 0.02f) << spec.name;
      }
    }
  }
}

TEST(Parameters, ATiedWeightIsUsedByEmbeddingAndHeadAndCountedOnce) {
  const LayerGraph tied = SmallLlama(true), untied = SmallLlama(false);
  EXPECT_EQ(ParameterCount(untied) - ParameterCount(tied), 29 * 12);
  ASSERT_EQ(TiedWeights(tied).size(), 1u);
  EXPECT_EQ(TiedWeights(tied)[0].name, "model.embed_tokens.weight");
  EXPECT_THAT(TiedWeights(tied)[0].nodes, ElementsAre(0, 6));
  EXPECT_TRUE(TiedWeights(untied).empty());
}

// --- Validation ---

std::string ErrorOf(const LayerGraph& graph) { return std::string(Validate(graph).message()); }

TEST(Validate, NamesTheLayerAndWhatDoesNotFit) {
  LayerGraph graph = SmallLlama();
  graph.nodes[1].kv_heads = 3;
  EXPECT_THAT(ErrorOf(graph),
              HasSubstr("layer \"model.layers.0.self_attn\" (attention): kv_heads 3 doesn't divide heads 4"));
  graph = SmallLlama();
  graph.nodes[1].head_size = 5;
  EXPECT_THAT(ErrorOf(graph), HasSubstr("rope needs an even head_size, not 5"));
  graph = SmallLlama();
  graph.nodes[6].tied_to = "embedding";
  EXPECT_THAT(ErrorOf(graph), HasSubstr("tied to \"embedding\", which no layer before it is called"));
  graph.nodes[6].tied_to = "model.norm";
  EXPECT_THAT(ErrorOf(graph), HasSubstr("which is no embedding"));
  graph = SmallGpt2();
  graph.nodes[2].channels = 16;
  EXPECT_THAT(ErrorOf(graph), HasSubstr("takes 16 channels, but \"h.0.attn\" before it gives 12"));
  graph = SmallGpt2();
  graph.nodes[2].name = "h.0.attn";
  EXPECT_THAT(ErrorOf(graph), HasSubstr("another layer has the same name"));
  graph = SmallGpt2();
  graph.nodes[0].positions = 8;
  EXPECT_THAT(ErrorOf(graph), HasSubstr("positions 8 are fewer than max_sequence 16"));
  graph = SmallGpt2();
  graph.nodes[4].dropout = 1;
  EXPECT_THAT(ErrorOf(graph), HasSubstr("dropout is 1"));
  graph = SmallGpt2();
  graph.nodes[4].width = 0;
  EXPECT_THAT(ErrorOf(graph), HasSubstr("width is 0"));
}

TEST(Validate, KnowsWhereAChainBeginsAndEnds) {
  EXPECT_THAT(ErrorOf({}), HasSubstr("no layers"));
  LayerGraph graph = SmallGpt2();
  graph.nodes.pop_back();
  EXPECT_THAT(ErrorOf(graph), HasSubstr("the last layer must be a head"));
  graph = SmallGpt2();
  graph.nodes.erase(graph.nodes.begin());
  EXPECT_FALSE(Validate(graph).ok());
  graph = SmallGpt2();
  std::swap(graph.nodes[5], graph.nodes[6]);
  EXPECT_THAT(ErrorOf(graph), HasSubstr("layer \"lm_head\" (head): a head makes the loss and must be the last layer"));
}

TEST(Validate, RefusesNamesThatMakeParametersCollide) {
  LayerGraph graph = SmallGpt2();
  graph.nodes[1].name = "a.attn";
  graph.nodes[3].name = "a.attention";
  EXPECT_THAT(ErrorOf(graph), HasSubstr("parameter \"a.ln_1.weight\" is also one of layer \"a.attn\""));
}

TEST(Validate, FamiliesRefuseImpossibleSizes) {
  EXPECT_THAT(Gpt2Graph({.channels = 100, .heads = 12}).status().message(),
              HasSubstr("heads 12 must divide channels 100"));
  EXPECT_FALSE(Gpt2Graph({.layers = 0}).ok());
  EXPECT_FALSE(LlamaGraph({.layers = 1, .channels = 10, .heads = 3, .vocabulary = 5}).ok());
  EXPECT_FALSE(MlpGraph({.layers = 1, .width = -4}).ok());
  EXPECT_FALSE(MlpGraph({.vocabulary = 0}).ok());
}

// --- Costs ---

TEST(LayerCost, ForwardIsTwoPerMultiplyAdd) {
  const LayerGraph graph = Gpt2Graph(Gpt2Preset("124M").value()).value();
  const double tokens = 4 * 1024;
  double flops = 0;
  for (const Node& node : graph.nodes) flops += Cost(node, 4, 1024, Precision::kF32).forward.flops;
  // 12 layers of 12 C^2 weights; two products of a causal triangle of T (T + 1) / 2 a row and head.
  const double weights = 12 * 12.0 * 768 * 768;
  EXPECT_DOUBLE_EQ(flops, 2 * tokens * weights + 12 * 2 * 2.0 * 4 * 768 * (1024 * 1025 / 2));
}

TEST(LayerCost, AHeadDoesAllItsWorkInTheInputGradient) {
  const Node head{.name = "head", .kind = LayerKind::kHead, .channels = 768, .vocabulary = 50257};
  const double product = 2 * 1024.0 * 768 * 50257, weight = 768 * 50257.0, logits = 1024 * 50257.0, x = 1024 * 768.0;
  const LayerCost cost = Cost(head, 2, 512, Precision::kBF16);
  EXPECT_EQ(cost.forward, OperationCost());
  EXPECT_EQ(cost.weight_gradient, OperationCost());
  EXPECT_EQ(cost.recompute_full, OperationCost());
  EXPECT_DOUBLE_EQ(cost.input_gradient.flops, 3 * product);
  // Two chunks: each reads the bf16 weight twice, and its f32 gradient, which it writes too. Logits are f32 once
  // written and once read, their gradient bf16 once written and twice read; x read twice and dx written.
  EXPECT_DOUBLE_EQ(cost.input_gradient.bytes, 2 * (2 * 2 + 8) * weight + (2 * 4 + 3 * 2) * logits + 3 * 2 * x);
}

TEST(LayerCost, WeightGradientsCostAProductMoreAndBf16MovesFewerBytes) {
  for (const Node& node : SmallLlama().nodes) {
    const LayerCost f32 = Cost(node, 2, 8, Precision::kF32), bf16 = Cost(node, 2, 8, Precision::kBF16);
    EXPECT_EQ(f32.forward.flops, bf16.forward.flops);
    EXPECT_LE(bf16.forward.bytes, f32.forward.bytes) << node.name;
    EXPECT_LE(bf16.input_gradient.bytes, f32.input_gradient.bytes) << node.name;
    EXPECT_GE(f32.input_gradient.flops, f32.weight_gradient.flops) << node.name;
    EXPECT_LE(f32.recompute_selective.bytes, f32.recompute_full.bytes) << node.name;
  }
}

// --- Layout ---

// Like a device that packs a weight into twice its size and a bit.
int64_t PackedBytes(const LinearShape& shape) { return 2 * shape.n * shape.k * SizeOf(shape.compute) + 4; }

struct Piece {
  int64_t begin = 0, end = 0;
};

void ExpectDisjoint(std::vector<Piece> pieces, int64_t size) {
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
  int64_t used = 0;
  for (const Piece& piece : pieces) {
    EXPECT_GE(piece.begin, used);
    used = piece.end;
  }
  EXPECT_LE(used, size);
}

// Every piece of `region` that is alive while a micro-batch goes from F to W.
std::vector<Piece> PiecesOf(const LayerGraph& graph, NodeRange range, const StageOptions& options,
                            const StageLayout& layout, Place::Region region) {
  std::vector<Piece> pieces;
  const int64_t tokens = options.rows * options.sequence;
  for (size_t i = 0; i < layout.layers.size(); ++i) {
    const LayerPlace& layer = layout.layers[i];
    const Node& node = graph.nodes[range.begin + i];
    for (size_t t = 0; t < layer.tensors.size(); ++t) {
      const Place& place = layer.backward[t];
      const LayerTensor& tensor = layer.tensors[t];
      const int64_t rows = tensor.rows_max > 0 ? std::min(tokens, tensor.rows_max) : tokens;
      const int64_t bytes = rows * tensor.columns * SizeOf(tensor.dtype);
      if (place.region == region) pieces.push_back({place.offset, place.offset + bytes});
    }
    const int64_t out = tokens * OutputBytesPerToken(node, options.precision);
    if (layer.output.region == region) pieces.push_back({layer.output.offset, layer.output.offset + out});
    const Place& gradient = layer.output_gradient;
    if (gradient.region == region) pieces.push_back({gradient.offset, gradient.offset + out});
  }
  if (region != Place::Region::kStash) return pieces;
  const BatchPlaces& batch = layout.batch;
  for (int64_t offset : {batch.tokens, batch.targets, batch.positions, batch.first_key}) {
    if (offset >= 0) pieces.push_back({offset, offset + 4 * tokens});
  }
  if (batch.samples >= 0) pieces.push_back({batch.samples, batch.samples + 4 * options.rows});
  return pieces;
}

TEST(StageLayout, NothingThatLivesAtOnceOverlaps) {
  for (const LayerGraph& graph : {SmallGpt2(), SmallLlama()}) {
    for (Recomputation recomputation : {Recomputation::kNone, Recomputation::kSelective, Recomputation::kFull}) {
      for (Precision precision : {Precision::kF32, Precision::kBF16}) {
        const StageOptions options{.precision = precision,
                                   .recomputation = recomputation,
                                   .backward = BackwardForm::kSplit,
                                   .rows = 3,
                                   .sequence = 7};
        const NodeRange range{1, graph.nodes.size()};
        const StageLayout layout = PlanStage(graph, range, options, PackedBytes);
        ExpectDisjoint(PiecesOf(graph, range, options, layout, Place::Region::kStash), layout.memory.stash_slot);
        ExpectDisjoint(PiecesOf(graph, range, options, layout, Place::Region::kGradientStash),
                       layout.memory.gradient_stash_slot);
      }
    }
  }
}

TEST(StageLayout, RecomputationKeepsLessAndWholeBackwardNeedsLess) {
  const LayerGraph graph = SmallGpt2();
  const NodeRange range{0, graph.nodes.size()};
  const auto plan = [&](Recomputation recomputation, BackwardForm backward) {
    return PlanStageMemory(
        graph, range, {.recomputation = recomputation, .backward = backward, .rows = 4, .sequence = 16}, PackedBytes);
  };
  const StageMemory none = plan(Recomputation::kNone, BackwardForm::kWhole);
  const StageMemory selective = plan(Recomputation::kSelective, BackwardForm::kWhole);
  const StageMemory full = plan(Recomputation::kFull, BackwardForm::kWhole);
  EXPECT_LT(selective.stash_slot, none.stash_slot);
  EXPECT_LT(full.stash_slot, selective.stash_slot / 2);
  EXPECT_EQ(none.gradient_stash_slot, selective.gradient_stash_slot);
  EXPECT_LT(none.gradient_stash_slot, plan(Recomputation::kNone, BackwardForm::kSplit).gradient_stash_slot);
}

TEST(StageLayout, CutsShareOutParametersAndBothHoldATiedOne) {
  const LayerGraph graph = SmallGpt2();
  const StageOptions options{.rows = 2, .sequence = 8, .gradient_groups = 2};
  const size_t end = graph.nodes.size();
  const StageMemory whole = PlanStageMemory(graph, {0, end}, options, PackedBytes);
  const StageMemory first = PlanStageMemory(graph, {0, 3}, options, PackedBytes);
  const StageMemory second = PlanStageMemory(graph, {3, end}, options, PackedBytes);
  const int64_t table = (29 * 12 * 4 + 63) / 64 * 64;
  EXPECT_EQ(first.parameters + second.parameters, whole.parameters + table);
  EXPECT_EQ(first.packed + second.packed, whole.packed);
  EXPECT_EQ(first.output_message, 2 * 8 * 12 * 4);
  EXPECT_EQ(second.input_message, first.output_message);
  EXPECT_EQ(second.input_gradient_message, first.output_gradient_message);
  EXPECT_EQ(first.input_message, 0);
  EXPECT_EQ(second.output_message, 0);
  EXPECT_EQ(NormPartials(graph, {0, 3}) + NormPartials(graph, {3, end}), NormPartials(graph, {0, end}));
}

TEST(StageLayout, InferenceHasNeitherGradientsNorOptimizerState) {
  const LayerGraph graph = SmallLlama();
  const NodeRange range{0, graph.nodes.size()};
  const StageMemory memory =
      PlanStageMemory(graph, range, {.purpose = StagePurpose::kInference, .rows = 2, .sequence = 8}, PackedBytes);
  EXPECT_EQ(memory.gradients, 0);
  EXPECT_EQ(memory.optimizer, 0);
  EXPECT_EQ(memory.gradient_stash_slot, 0);
  // Two activations and the batch, however many layers.
  LlamaSizes deep{
      .layers = 9, .channels = 12, .heads = 4, .kv_heads = 2, .head_size = 4, .width = 20, .vocabulary = 29};
  const LayerGraph deeper = LlamaGraph(deep).value();
  const StageOptions options{.purpose = StagePurpose::kInference, .rows = 2, .sequence = 8};
  const StageMemory more = PlanStageMemory(deeper, {0, deeper.nodes.size()}, options, PackedBytes);
  EXPECT_EQ(more.stash_slot, memory.stash_slot);
  EXPECT_EQ(more.scratch, memory.scratch);
  EXPECT_GT(memory.parameters, 0);
}

// One chunk of f32 logits and bf16 gradients, and what is smaller by far, however long the micro-batch is and however
// many of them are in flight.
TEST(StageLayout, TheHeadHasRoomForOneChunkOfLogits) {
  const LayerGraph graph = SmallGpt2();
  const NodeRange head{graph.nodes.size() - 1, graph.nodes.size()};
  const auto plan = [&](int64_t rows, Precision precision) {
    const StageOptions options{
        .precision = precision, .backward = BackwardForm::kSplit, .rows = rows, .sequence = 16, .stash_slots = 4};
    return PlanStageMemory(graph, head, options, PackedBytes);
  };
  for (const auto& [precision, bytes] : {std::pair(Precision::kF32, 4), {Precision::kBF16, 6}}) {
    const int64_t logits = kHeadRows * 29 * bytes;
    const StageMemory one = plan(kHeadRows / 16, precision), many = plan(64 * kHeadRows / 16, precision);
    EXPECT_GT(one.scratch, logits);
    EXPECT_LT(one.scratch, 2 * logits);
    EXPECT_EQ(many.scratch - one.scratch, 63 * kHeadRows / 16 * 29 * 4) << "logits wanted of a token a row";
    EXPECT_EQ(many.stash_slot, 64 * kHeadRows * 4) << "the targets";
    EXPECT_EQ(many.gradient_stash_slot, 0);
  }
}

}  // namespace
}  // namespace sluice
