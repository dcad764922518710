// Layer graphs survive the way to a file and back, and a wrong file is refused with its line.
#include "stages/graph_io.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "stages/families/gpt2.h"
#include "stages/families/llama.h"
#include "stages/families/mlp.h"

namespace sluice {
namespace {

using testing::HasSubstr;

TEST(GraphIo, EveryFamilySurvivesTheWayToTextAndBack) {
  const auto gpt2 = Gpt2Graph({.layers = 2, .channels = 64, .heads = 4, .dropout = 0.1f});
  const auto llama =
      LlamaGraph({.layers = 2, .channels = 64, .heads = 4, .kv_heads = 2, .vocabulary = 300, .tied = true});
  const auto mlp = MlpGraph({.layers = 3});
  for (const auto& graph : {gpt2, llama, mlp}) {
    ASSERT_TRUE(graph.ok()) << graph.status();
    const std::string text = GraphToText(*graph);
    const auto again = GraphFromText(text, "g");
    ASSERT_TRUE(again.ok()) << again.status() << "\n" << text;
    EXPECT_EQ(*again, *graph);
    EXPECT_EQ(GraphToText(*again), text);
  }
}

TEST(GraphIo, EveryFieldOfANodeSurvives) {
  LayerGraph graph{.name = "all", .vocabulary = 10, .max_sequence = 8};
  graph.nodes = {{.name = "e", .kind = LayerKind::kEmbedding, .channels = 12, .vocabulary = 10, .positions = 9},
                 {.name = "a",
                  .kind = LayerKind::kAttention,
                  .channels = 12,
                  .heads = 6,
                  .kv_heads = 3,
                  .head_size = 2,
                  .norm = Normalization::kRmsNorm,
                  .norm_epsilon = 3e-7f,
                  .rope_theta = 77,
                  .bias = true,
                  .dropout = 0.5f,
                  .naming = Naming::kLlama,
                  .init_deviation = 0.03f,
                  .projection_deviation = 0.004f},
                 {.name = "m", .kind = LayerKind::kMlp, .channels = 12, .width = 5, .activation = Activation::kSwiglu},
                 {.name = "h", .kind = LayerKind::kHead, .channels = 12, .vocabulary = 10, .tied_to = "e"}};
  const auto again = GraphFromText(GraphToText(graph), "g");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, graph);
}

TEST(GraphIo, ErrorsNameTheLineAndTheLayer) {
  constexpr char kBegin[] =
      "vocabulary: 10 max_sequence: 8\nnode { name: \"e\" kind: embedding channels: 12 vocabulary: 10 }\n";
  constexpr char kEnd[] = "node { name: \"h\" kind: head channels: 12 vocabulary: 10 }\n";
  const auto error = [&](const std::string& node) {
    const auto graph = GraphFromText(kBegin + node + kEnd, "g.textproto");
    return graph.ok() ? std::string() : std::string(graph.status().message());
  };
  EXPECT_EQ(error(""), "");
  EXPECT_THAT(error("\nnode {\n  name: \"a\" kind: attention channels: 12 heads: 5 kv_heads: 2 head_size: 4 }"),
              HasSubstr("g.textproto:5: layer \"a\" (attention): kv_heads 2 doesn't divide heads 5"));
  EXPECT_THAT(error("node { name: \"e\" kind: norm channels: 12 }"), HasSubstr("g.textproto:3: layer \"e\""));
  EXPECT_THAT(error("node { name: \"x\" }"), HasSubstr("g.textproto:3: a node needs a kind"));
  EXPECT_THAT(error("node { name: \"x\" kind: norm chanels: 3 }"), HasSubstr("did you mean \"channels\"?"));
  EXPECT_THAT(error("node { name: \"x\" kind: convolution }"), HasSubstr("g.textproto:3:"));
  EXPECT_THAT(error("node { name: \"x\" kind: cross_entropy channels: 10 }"),
              HasSubstr("g.textproto:3: the head makes the loss: leave this node out"));
  EXPECT_THAT(error("node { name: \"x\" kind: norm channels: 16 }"), HasSubstr("g.textproto:3:"));
  EXPECT_THAT(GraphFromText("format_version: 2", "g").status().message(), HasSubstr("this program understands 1"));
  EXPECT_FALSE(GraphFromText("", "g").ok());
  EXPECT_TRUE(absl::IsNotFound(LoadGraph("/nowhere").status()));
}

}  // namespace
}  // namespace sluice
