#include "runtime/checkpoint/checkpoint.h"

#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/checkpoint/test_checkpoints.h"

namespace sluice {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

std::unique_ptr<Checkpoint> Saved(const LayerGraph& graph, const TestState& state, const TestLayout& layout,
                                  RandomNumbers& random) {
  const auto store = CheckpointStore::Open(EmptyFolder("saved"));
  EXPECT_TRUE(store.ok()) << store.status();
  const auto path = SaveShards(**store, 7, graph, ShardsOf(graph, state, layout, random));
  EXPECT_TRUE(path.ok()) << path.status();
  auto checkpoint = Checkpoint::Open(*path);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *std::move(checkpoint);
}

// What a rank of another layout would read.
void ExpectReads(const Checkpoint& checkpoint, const LayerGraph& graph, const TestState& state,
                 const TestLayout& layout) {
  ForEachHeld(graph, layout, [&](const StageParameter& parameter, size_t, int) {
    const ParameterSpec& spec = parameter.spec;
    for (const StateKind kind : kSavedKinds) {
      std::vector<float> part(spec.elements());
      int64_t begin = 0;
      for (const Slice& slice : spec.slices) {
        const auto out = absl::MakeSpan(part).subspan(begin, slice.elements());
        const absl::Status read = checkpoint.Read(kind, spec.name, slice, out);
        ASSERT_TRUE(read.ok()) << read;
        begin += slice.elements();
      }
      ASSERT_EQ(part, PartOf(spec, state.at(kind, spec.name))) << spec.name;
    }
  });
}

TEST(Checkpoint, WhatAnyLayoutWritesAnyLayoutReads) {
  for (int seed = 0; seed < 25; ++seed) {
    SCOPED_TRACE(seed);
    RandomNumbers random(seed);
    const LayerGraph graph = SmallGraph(random);
    const TestState state(graph, static_cast<float>(seed));
    const auto checkpoint = Saved(graph, state, RandomLayout(random, graph), random);
    ASSERT_NE(checkpoint, nullptr);
    EXPECT_TRUE(checkpoint->Check(graph).ok()) << checkpoint->Check(graph);
    EXPECT_TRUE(checkpoint->Verify().ok()) << checkpoint->Verify();
    EXPECT_EQ(checkpoint->tensors().size(), state.size());
    EXPECT_TRUE(checkpoint->HasMoments());
    ASSERT_TRUE(checkpoint->Graph().ok()) << checkpoint->Graph().status();
    EXPECT_EQ(*checkpoint->Graph(), graph);
    for (int i = 0; i < 3; ++i) ExpectReads(*checkpoint, graph, state, RandomLayout(random, graph));
  }
}

TEST(Checkpoint, SeveralThreadsReadAtOnce) {
  RandomNumbers random(4);
  const LayerGraph graph = SmallGraph(random);
  const TestState state(graph);
  const auto checkpoint = Saved(graph, state, RandomLayout(random, graph), random);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      RandomNumbers own(i);
      ExpectReads(*checkpoint, graph, state, RandomLayout(own, graph));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Checkpoint, ReadsAnyBlock) {
  RandomNumbers random(1);
  const LayerGraph graph = SmallGraph(random);
  const TestState state(graph);
  const auto checkpoint = Saved(graph, state, RandomLayout(random, graph), random);
  for (int i = 0; i < 500; ++i) {
    const auto tensors = checkpoint->tensors();
    const Checkpoint::Tensor& tensor = tensors[random.Below(static_cast<int64_t>(tensors.size()))];
    const auto rows = random.Cuts(tensor.rows, 3), columns = random.Cuts(tensor.columns, 3);
    const Slice block{
        .row = rows[1], .column = columns[1], .rows = rows[2] - rows[1], .columns = columns[2] - columns[1]};
    std::vector<float> out(block.elements());
    ASSERT_TRUE(checkpoint->Read(tensor.kind, tensor.name, block, absl::MakeSpan(out)).ok());
    for (int64_t n = 0; n < block.elements(); ++n) {
      const int64_t row = block.row + n / block.columns, column = block.column + n % block.columns;
      ASSERT_EQ(out[n], state.at(tensor.kind, tensor.name)[row * tensor.columns + column]);
    }
  }
}

TEST(Checkpoint, RefusesAnotherModelByTheTensorsName) {
  const auto llama = [](int64_t layers, int64_t width, bool tied) {
    return LlamaGraph({.layers = layers,
                       .channels = 8,
                       .heads = 2,
                       .kv_heads = 2,
                       .head_size = 4,
                       .width = width,
                       .vocabulary = 20,
                       .max_sequence = 16,
                       .tied = tied})
        .value();
  };
  RandomNumbers random(2);
  const LayerGraph graph = llama(2, 8, true);
  const auto checkpoint = Saved(graph, TestState(graph), {.cuts = {0, 3, 6}}, random);
  const auto refusal = [&](const LayerGraph& other) { return std::string(checkpoint->Check(other).message()); };
  EXPECT_THAT(refusal(llama(3, 8, true)), HasSubstr("has no parameter \"model.layers.2.input_layernorm.weight\""));
  EXPECT_THAT(refusal(llama(1, 8, true)), HasSubstr("which this model"));
  EXPECT_THAT(refusal(llama(2, 16, true)),
              HasSubstr("\"model.layers.0.mlp.gate_up_proj.weight\" is [16, 8] and not [32, 8]"));
  EXPECT_THAT(refusal(llama(2, 8, false)), HasSubstr("has no parameter \"lm_head.weight\""));
  std::vector<float> out(8);
  EXPECT_THAT(std::string(checkpoint
                              ->Read(StateKind::kParameter, "model.norm.weight", {.column = 4, .rows = 1, .columns = 8},
                                     absl::MakeSpan(out))
                              .message()),
              HasSubstr("has no rows 0 to 0, columns 4 to 11"));
  EXPECT_EQ(checkpoint->Read(StateKind::kParameter, "none", {.rows = 1, .columns = 8}, absl::MakeSpan(out)).code(),
            absl::StatusCode::kNotFound);
}

TEST(Checkpoint, AShardThatNobodySavedIsNamedWhenItIsCommitted) {
  for (int seed = 0; seed < 10; ++seed) {
    RandomNumbers random(seed);
    const LayerGraph graph = SmallGraph(random);
    auto shards = ShardsOf(graph, TestState(graph),
                           {.cuts = {0, 2, static_cast<int64_t>(graph.nodes.size())}, .members = 2}, random);
    const auto store = CheckpointStore::Open(EmptyFolder("missing"));
    ASSERT_TRUE(store.ok());
    auto lost = shards;
    lost.erase(std::next(lost.begin(), random.Below(static_cast<int64_t>(lost.size()))));
    const auto path = SaveShards(**store, 1, graph, lost);
    EXPECT_THAT(std::string(path.status().message()), AnyOf(HasSubstr("are missing"), HasSubstr("nobody has saved")));
    auto twice = shards;
    twice["copy.safetensors"] = shards.begin()->second;
    if (twice["copy.safetensors"].values.empty()) continue;
    const absl::Status status = SaveShards(**store, 2, graph, twice).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr("are there twice"));
  }
}

// Against marks on every element.
TEST(Piece, RectanglesMakeUpThePieceAndGapsAndOverlapsAreFound) {
  for (int seed = 0; seed < 300; ++seed) {
    RandomNumbers random(seed);
    const int64_t rows = 1 + random.Below(6), columns = 1 + random.Below(6);
    std::vector<int> marks(rows * columns);
    std::vector<Rectangle> rectangles;
    for (int64_t n = random.Below(6); n >= 0; --n) {
      const auto r = random.Cuts(rows, 3), c = random.Cuts(columns, 3);
      Piece piece{.name = "a",
                  .complete_rows = rows,
                  .complete_columns = columns,
                  .block = {.row = r[1], .column = c[1], .rows = r[2] - r[1], .columns = c[2] - c[1]}};
      const auto run = random.Cuts(piece.block.elements(), 3);
      piece.begin = run[1];
      piece.count = run[2] - run[1];
      for (int64_t i = piece.begin; i < piece.begin + piece.count; ++i) {
        ++marks[(piece.block.row + i / piece.block.columns) * columns + piece.block.column + i % piece.block.columns];
      }
      const auto parts = RectanglesOf(piece);
      EXPECT_LE(parts.size(), 3u);
      for (const PieceRectangle& part : parts) {
        rectangles.push_back(part.rectangle);
        const Rectangle& at = part.rectangle;
        EXPECT_EQ((at.row - piece.block.row) * piece.block.columns + at.column - piece.block.column,
                  piece.begin + part.offset);
      }
    }
    std::vector<int> covered(marks.size());
    for (const Rectangle& at : rectangles) {
      for (int64_t row = at.row; row < at.row + at.rows; ++row) {
        for (int64_t column = at.column; column < at.column + at.columns; ++column) ++covered[row * columns + column];
      }
    }
    EXPECT_EQ(covered, marks);
    const bool overlap = std::any_of(marks.begin(), marks.end(), [](int mark) { return mark > 1; });
    EXPECT_EQ(FindOverlap(rectangles).has_value(), overlap);
    const bool gap = std::any_of(marks.begin(), marks.end(), [](int mark) { return mark == 0; });
    const auto found = FindGap({0, 0, rows, columns}, rectangles);
    ASSERT_EQ(found.has_value(), gap);
    if (!gap) continue;
    ASSERT_GT(found->elements(), 0);
    for (int64_t row = found->row; row < found->row + found->rows; ++row) {
      for (int64_t column = found->column; column < found->column + found->columns; ++column) {
        EXPECT_EQ(marks[row * columns + column], 0);
      }
    }
  }
}

}  // namespace
}  // namespace sluice
