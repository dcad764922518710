// Every kind of layer against the double-precision reference: its output, and its gradients against central
// differences.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "base/world.h"
#include "kernels/cpu/cpu_device.h"
#include "stages/layer_stage.h"
#include "tests/stages/reference_model.h"

namespace sluice {
namespace {

constexpr int64_t kRows = 3, kVocabulary = 19;
// f32 sums of up to a hundred products of numbers near 1 are off by a few 1e-6 of the largest; dots of attention and
// the softmax multiply that by a small factor.
constexpr double kTolerance = 3e-5;
constexpr double kStep = 1e-5;  // of central differences in double: their own error is near 1e-9
constexpr float kLossScale = 0.125f;

struct LayerCase {
  std::string name;
  Node node;
  bool document_borders = false;
  int64_t sequence = 7;
  friend std::ostream& operator<<(std::ostream& out, const LayerCase& c) { return out << c.name; }
};

// The node within a valid chain.
LayerGraph GraphAround(const Node& node, int64_t sequence) {
  LayerGraph graph{.name = "test", .vocabulary = kVocabulary, .max_sequence = sequence};
  const auto add = [&](Node n) { graph.nodes.push_back(n); };
  if (node.kind != LayerKind::kEmbedding) {
    add({.name = "wte", .kind = LayerKind::kEmbedding, .channels = node.channels, .vocabulary = kVocabulary});
  }
  add(node);
  if (node.kind != LayerKind::kHead) {
    add({.name = "head", .kind = LayerKind::kHead, .channels = OutputWidth(node), .vocabulary = kVocabulary});
  }
  return graph;
}

// One layer as a stage of its own, with random parameters, input and output gradient.
class LayerGradient : public ::testing::TestWithParam<LayerCase> {
 protected:
  void SetUp() override {
    graph_ = GraphAround(GetParam().node, sequence_);
    const absl::Status valid = Validate(graph_);
    ASSERT_TRUE(valid.ok()) << valid;
    while (graph_.nodes[index_].name != GetParam().node.name) ++index_;
    MakeBatch();
    device_ = cpu::NewCpuDevice(world_.get(), {.poison_fresh_memory = true});
    stream_ = device_->NewStream("compute");
    const StageOptions options{
        .backward = BackwardForm::kSplit, .rows = kRows, .sequence = sequence_, .seed = batch_.seed};
    stage_ =
        LayerStage::Create(device_.get(), stream_.get(), graph_, StageId(0), {index_, index_ + 1}, options).value();
    for (const ParameterSpec& spec : stage_->parameters()) {
      std::vector<float> values = Random(spec.elements(), 0.5f);
      if (spec.init == ParameterSpec::Init::kOne) {
        for (float& value : values) value += 1;
      }
      parameters_[spec.name] = Doubles(values.begin(), values.end());
      ASSERT_TRUE(world_->Wait(stage_->Write(StateKind::kParameter, spec.name, values).value()).ok());
    }
    x_ = Random(index_ == 0 ? 0 : kRows * sequence_ * node().channels, 1);
    r_ = Random(kRows * sequence_ * OutputWidth(node()), 1);
  }

  const Node& node() const { return graph_.nodes[index_]; }

  void MakeBatch() {
    batch_ = {.rows = kRows, .sequence = sequence_, .samples = {5, 0, 1000003}, .seed = 42, .step = 9};
    for (int64_t i = 0; i < kRows * sequence_; ++i) {
      batch_.tokens.push_back(static_cast<int32_t>(generator_() % kVocabulary));
      batch_.targets.push_back(i % 5 == 2 ? -1 : static_cast<int32_t>(generator_() % kVocabulary));
      batch_.positions.push_back(static_cast<int32_t>(i % sequence_));
      if (GetParam().document_borders) batch_.first_key.push_back(i % sequence_ < 3 ? 0 : 3);
    }
  }

  std::vector<float> Random(int64_t count, float scale) {
    std::uniform_real_distribution<float> uniform(-scale, scale);
    std::vector<float> values(count);
    for (float& value : values) value = uniform(generator_);
    return values;
  }

  std::vector<float> FromDevice(const Slot& slot) {
    std::vector<float> values(slot.buffer.bytes() / 4);
    stream_->CopyToHost({slot.buffer.data(), DType::kF32, {static_cast<int64_t>(values.size())}}, values.data());
    EXPECT_TRUE(world_->Wait(stream_->Record()).ok());
    return values;
  }

  Slot ToDevice(const std::vector<float>& values) {
    const int64_t count = static_cast<int64_t>(values.size());
    Slot slot{device_->Allocate(4 * count, "message").value()};
    stream_->CopyToDevice(values.data(), {slot.buffer.data(), DType::kF32, {count}});
    return slot;
  }

  // What is differentiated: output times r, or the scaled loss.
  double Objective(const ReferenceParameters& parameters, const Doubles& x) const {
    const Doubles y = ReferenceModel(graph_, batch_).Apply(index_, parameters, x);
    if (r_.empty()) return kLossScale * y[0];
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += y[i] * r_[i];
    return sum;
  }

  void ExpectNear(const std::vector<float>& values, const Doubles& wanted, const std::string& what) {
    ASSERT_EQ(values.size(), wanted.size());
    double largest = 1e-3;
    for (double value : wanted) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(values[i], wanted[i], kTolerance * largest) << what << "[" << i << "]";
    }
  }

  // All elements of small tensors, every third or so of large ones.
  template <class Change>
  void ExpectDifferences(const std::vector<float>& gradient, const std::string& what, const Change& objective_with) {
    double largest = 1e-3;
    for (float value : gradient) largest = std::max(largest, std::abs(double{value}));
    const size_t stride = gradient.size() / 100 + 1;
    for (size_t i = 0; i < gradient.size(); i += stride) {
      const double difference = (objective_with(i, kStep) - objective_with(i, -kStep)) / (2 * kStep);
      ASSERT_NEAR(gradient[i], difference, kTolerance * largest) << what << "[" << i << "]";
    }
  }

  const int64_t sequence_ = GetParam().sequence;
  std::mt19937 generator_{7};
  LayerGraph graph_;
  size_t index_ = 0;
  ReferenceBatch batch_;
  ReferenceParameters parameters_;
  std::vector<float> x_, r_;
  std::unique_ptr<World> world_ = NewRealWorld();
  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<LayerStage> stage_;
};

TEST_P(LayerGradient, AgreesWithTheReferenceAndItsFiniteDifferences) {
  Slot x = ToDevice(x_), r = ToDevice(r_), y = ToDevice(r_), dx = ToDevice(x_);
  const MicroBatchInfo info{.index = MicroBatch(0),
                            .rows = kRows,
                            .sequence = sequence_,
                            .tokens = batch_.tokens,
                            .targets = batch_.targets,
                            .positions = batch_.positions,
                            .first_key = batch_.first_key,
                            .samples = batch_.samples,
                            .step = batch_.step,
                            .loss_scale = kLossScale,
                            .accumulate = Accumulate::kOverwrite,
                            .head_accumulate = Accumulate::kOverwrite};
  StageSlots slots{.stash = 0, .gradient_stash = 0};
  if (!x_.empty()) slots.input = &x, slots.input_gradient = &dx;
  if (!r_.empty()) slots.output = &y, slots.output_gradient = &r;
  stage_->Forward(info, slots, {});
  stage_->InputGradient(info, slots, {});
  stage_->WeightGradient(info, slots, {});

  const Doubles input(x_.begin(), x_.end());
  const Doubles output = ReferenceModel(graph_, batch_).Apply(index_, parameters_, input);
  if (r_.empty()) {
    float loss = 0;
    stream_->CopyToHost(stage_->losses(), &loss);
    ASSERT_TRUE(world_->Wait(stream_->Record()).ok());
    EXPECT_NEAR(loss, output[0], kTolerance * output[0]);
  } else {
    ExpectNear(FromDevice(y), output, "y");
  }
  ExpectDifferences(x_.empty() ? x_ : FromDevice(dx), "dx", [&](size_t i, double step) {
    Doubles moved = input;
    moved[i] += step;
    return Objective(parameters_, moved);
  });
  for (const ParameterSpec& spec : stage_->parameters()) {
    std::vector<float> gradient(spec.elements());
    ASSERT_TRUE(world_->Wait(stage_->Read(StateKind::kGradient, spec.name, absl::MakeSpan(gradient)).value()).ok());
    ExpectDifferences(gradient, spec.name, [&](size_t i, double step) {
      ReferenceParameters moved = parameters_;
      moved[spec.name][i] += step;
      return Objective(moved, input);
    });
  }
}

Node Attention(int64_t channels, int64_t heads, int64_t kv_heads, int64_t head_size) {
  return {.name = "h.0.attn",
          .kind = LayerKind::kAttention,
          .channels = channels,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_size = head_size};
}

std::vector<LayerCase> Cases() {
  Node gpt2 = Attention(20, 4, 4, 5);
  gpt2.bias = true;
  Node gpt2_dropout = gpt2;
  gpt2_dropout.dropout = 0.25f;
  Node llama = Attention(26, 6, 2, 6);
  llama.norm = Normalization::kRmsNorm;
  llama.rope_theta = 10000;
  llama.naming = Naming::kLlama;
  const Node gelu{.name = "h.0.mlp", .kind = LayerKind::kMlp, .channels = 13, .width = 37, .bias = true};
  Node gelu_dropout = gelu;
  gelu_dropout.dropout = 0.5f;
  const Node swiglu{.name = "h.0.mlp",
                    .kind = LayerKind::kMlp,
                    .channels = 13,
                    .width = 21,
                    .norm = Normalization::kRmsNorm,
                    .activation = Activation::kSwiglu,
                    .naming = Naming::kLlama};
  const Node embedding{.name = "wte", .kind = LayerKind::kEmbedding, .channels = 11, .vocabulary = kVocabulary};
  Node placed = embedding;
  placed.positions = 9;
  placed.dropout = 0.3f;
  return {
      {"EmbeddingOfTokens", embedding},
      {"EmbeddingWithPositionsAndDropout", placed},
      {"AttentionOfGpt2", gpt2},
      {"AttentionOfGpt2WithDocumentBorders", gpt2, true},
      {"AttentionOfGpt2WithDropout", gpt2_dropout},
      {"AttentionOfLlama", llama},
      {"AttentionOfLlamaWithDocumentBorders", llama, true},
      {"MlpWithGelu", gelu},
      {"MlpWithGeluAndDropout", gelu_dropout},
      {"MlpWithSwiglu", swiglu},
      {"LayerNorm", {.name = "norm", .kind = LayerKind::kNorm, .channels = 17}},
      {"RmsNorm", {.name = "norm", .kind = LayerKind::kNorm, .channels = 17, .norm = Normalization::kRmsNorm}},
      {"Linear", {.name = "fc", .kind = LayerKind::kLinear, .channels = 17, .width = 9}},
      {"LinearWithBias", {.name = "fc", .kind = LayerKind::kLinear, .channels = 9, .width = 17, .bias = true}},
      {"ActivationOfGelu", {.name = "gelu", .kind = LayerKind::kActivation, .channels = 15}},
      {"Head", {.name = "lm_head", .kind = LayerKind::kHead, .channels = 15, .vocabulary = kVocabulary}},
      {.name = "HeadInChunks",
       .node = {.name = "lm_head", .kind = LayerKind::kHead, .channels = 15, .vocabulary = kVocabulary},
       .sequence = (2 * kHeadRows + 100) / kRows},
  };
}

INSTANTIATE_TEST_SUITE_P(Layers, LayerGradient, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace sluice
