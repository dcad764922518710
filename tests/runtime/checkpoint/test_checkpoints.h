// Checkpoints of small models in random layouts, written as the ranks of such a layout would.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "gtest/gtest.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/shard_writer.h"
#include "runtime/checkpoint/store.h"
#include "stages/families/gpt2.h"
#include "stages/families/llama.h"
#include "stages/families/mlp.h"
#include "stages/graph_io.h"
#include "stages/tensor_parallel.h"

namespace sluice {

inline constexpr StateKind kSavedKinds[] = {StateKind::kParameter, StateKind::kFirstMoment, StateKind::kSecondMoment};

class RandomNumbers {
 public:
  explicit RandomNumbers(int seed) : random_(seed) {}
  // From [0, n).
  int64_t Below(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }
  // Borders that cut `count` things into parts, some of them empty.
  std::vector<int64_t> Cuts(int64_t count, int64_t parts) {
    std::vector<int64_t> cuts = {0, count};
    for (int64_t i = 1; i < parts; ++i) cuts.push_back(Below(count + 1));
    std::sort(cuts.begin(), cuts.end());
    return cuts;
  }

 private:
  std::mt19937_64 random_;
};

inline LayerGraph SmallGraph(RandomNumbers& random) {
  const int64_t layers = 1 + random.Below(3), head_size = 2 + 2 * random.Below(3), width = 8 + 8 * random.Below(3);
  switch (random.Below(3)) {
    case 0:
      return Gpt2Graph({.layers = layers,
                        .channels = 8 * head_size,
                        .heads = 8,
                        .vocabulary = 20 + random.Below(20),
                        .positions = 16})
          .value();
    case 1:
      return LlamaGraph({.layers = layers,
                         .channels = 12,
                         .heads = 8,
                         .kv_heads = int64_t{1} << random.Below(4),
                         .head_size = head_size,
                         .width = width,
                         .vocabulary = 20 + random.Below(20),
                         .max_sequence = 16,
                         .tied = random.Below(2) == 0})
          .value();
    default:
      return MlpGraph({.layers = layers,
                       .channels = 10,
                       .width = width,
                       .vocabulary = 29,
                       .positions = 16,
                       .max_sequence = 16})
          .value();
  }
}

// The complete tensors, each element different.
class TestState {
 public:
  explicit TestState(const LayerGraph& graph, float first = 0) {
    for (const StageParameter& parameter : StageParameters(graph, 0, graph.nodes.size())) {
      for (const StateKind kind : kSavedKinds) {
        std::vector<float>& values = tensors_[{kind, parameter.spec.name}];
        values.resize(parameter.spec.elements());
        for (float& value : values) value = first++;
      }
    }
  }
  const std::vector<float>& at(StateKind kind, const std::string& name) const { return tensors_.at({kind, name}); }
  size_t size() const { return tensors_.size(); }

 private:
  std::map<std::pair<StateKind, std::string>, std::vector<float>> tensors_;
};

struct TestLayout {
  std::vector<int64_t> cuts = {0};  // of the nodes, into stages
  int tp = 1;
  bool sequence_parallel = false;
  int members = 1;  // of a stage, with ZeRO-1
};
inline TestLayout RandomLayout(RandomNumbers& random, const LayerGraph& graph) {
  TestLayout layout{.cuts = random.Cuts(static_cast<int64_t>(graph.nodes.size()), 1 + random.Below(4)),
                    .tp = 1 << random.Below(4),
                    .sequence_parallel = random.Below(2) == 0,
                    .members = static_cast<int>(1 + random.Below(3))};
  while (!CheckTensorParallel(graph, {.size = layout.tp}).ok()) layout.tp /= 2;
  return layout;
}

// Calls body(parameter, stage, shard) for each that a rank holds.
template <class Body>
void ForEachHeld(const LayerGraph& graph, const TestLayout& layout, const Body& body) {
  for (size_t stage = 0; stage + 1 < layout.cuts.size(); ++stage) {
    for (int shard = 0; shard < layout.tp; ++shard) {
      const TensorParallel tensor{.size = layout.tp, .index = shard, .sequence_parallel = layout.sequence_parallel};
      for (const StageParameter& parameter :
           StageParameters(graph, layout.cuts[stage], layout.cuts[stage + 1], tensor)) {
        body(parameter, stage, shard);
      }
    }
  }
}

// What a rank writes: its pieces, and their values one after the other.
struct TestShard {
  std::vector<Piece> pieces;
  std::vector<float> values;
};
inline void AddPieces(const ParameterSpec& spec, StateKind kind, int64_t begin, int64_t count,
                      const std::vector<float>& part, TestShard* shard) {
  int64_t slice_begin = 0;
  std::vector<Piece> pieces = PiecesOf(spec, kind, begin, count);
  for (const Slice& slice : spec.slices) {
    for (Piece& piece : pieces) {
      if (piece.block != slice) continue;
      const auto first = part.begin() + slice_begin + piece.begin;
      shard->values.insert(shard->values.end(), first, first + piece.count);
      shard->pieces.push_back(std::move(piece));
    }
    slice_begin += slice.elements();
  }
}

// By file name.
inline std::map<std::string, TestShard> ShardsOf(const LayerGraph& graph, const TestState& state,
                                                 const TestLayout& layout, RandomNumbers& random) {
  std::map<std::string, TestShard> shards;
  ForEachHeld(graph, layout, [&](const StageParameter& parameter, size_t stage, int shard) {
    if (!parameter.answers()) return;
    for (const StateKind kind : kSavedKinds) {
      const std::vector<float> part = PartOf(parameter.spec, state.at(kind, parameter.spec.name));
      // In runs that are dealt out to the members.
      const std::vector<int64_t> runs = random.Cuts(parameter.spec.elements(), layout.members == 1 ? 1 : 5);
      for (size_t run = 0; run + 1 < runs.size(); ++run) {
        const std::string file =
            absl::StrCat("stage", stage, "-shard", shard, "-member", run % layout.members, ".safetensors");
        AddPieces(parameter.spec, kind, runs[run], runs[run + 1] - runs[run], part, &shards[file]);
      }
    }
  });
  return shards;
}

inline absl::StatusOr<std::string> SaveShards(CheckpointStore& store, int64_t step, const LayerGraph& graph,
                                              const std::map<std::string, TestShard>& shards, const Disk& disk = {}) {
  ASSIGN_OR_RETURN(const std::string partial, store.Begin(step));
  proto::CheckpointManifest manifest;
  manifest.set_step(step);
  manifest.set_program("test");
  manifest.set_loss(1.5);
  manifest.set_graph(GraphToText(graph));
  for (const auto& [file, shard] : shards) {
    ASSIGN_OR_RETURN(const auto writer, ShardWriter::Create(partial, file, shard.pieces, disk));
    RETURN_IF_ERROR(writer->Add(shard.values));
    ASSIGN_OR_RETURN(*manifest.add_shard(), writer->Finish());
  }
  return store.Commit(partial, std::move(manifest));
}

inline std::string EmptyFolder(const std::string& name) {
  const std::string path = std::filesystem::path(testing::TempDir() + "/" + name).lexically_normal().string();
  std::filesystem::remove_all(path);
  return path;
}

}  // namespace sluice
