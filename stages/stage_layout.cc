#include "stages/stage_layout.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "base/check.h"
#include "stages/packer.h"
#include "stages/tensor_traffic.h"
#include "stages/training_layout.h"

namespace sluice {
namespace {

using Region = Place::Region;

DType ComputeType(Precision precision) { return precision == Precision::kF32 ? DType::kF32 : DType::kBF16; }

// By each shard.
std::vector<int64_t> NormPartialsOf(const LayerGraph& graph, size_t node, size_t parameter, TensorParallel tensor) {
  std::vector<int64_t> partials;
  for (tensor.index = 0; tensor.index < tensor.size; ++tensor.index) {
    partials.push_back(NormBlocks(Parameters(graph, node, tensor)[parameter].elements_answered_for()));
  }
  return partials;
}

class Planner {
 public:
  Planner(const LayerGraph& graph, NodeRange range, const StageOptions& options, PackedBytesFunction packed_bytes,
          CacheBytesFunction cache_bytes)
      : graph_(graph), range_(range), options_(options), packed_bytes_(packed_bytes), cache_bytes_(cache_bytes) {}

  StageLayout Plan() {
    AddParameters();
    for (size_t i = range_.begin; i < range_.end; ++i) AddLayer(i);
    PlaceBatch();
    for (LayerPlace& layer : layout_.layers) PlaceTensors(&layer);
    PlaceOutputs();
    PlaceOutputGradients();
    PlaceArena();
    PlanMessages();
    return std::move(layout_);
  }

 private:
  int64_t tokens() const { return options_.rows * options_.sequence; }
  const TensorParallel& tensor() const { return options_.tensor_parallel; }
  // What leaves a layer: of the shard that has the most tokens, so that all shards have room for the same.
  int64_t OutputBytes(const Node& node) const {
    TensorParallel first = tensor();
    first.index = 0;
    return TokensOf(tokens(), first).count * OutputBytesPerToken(node, options_.precision);
  }
  bool training() const { return options_.purpose == StagePurpose::kTraining; }
  const Node& NodeOf(size_t layer) const { return graph_.nodes[range_.begin + layer]; }

  void AddParameters() {
    for (StageParameter& parameter : StageParameters(graph_, range_.begin, range_.end, tensor())) {
      index_of_[parameter.spec.name] = static_cast<int>(layout_.parameters.size());
      layout_.parameters.push_back({std::move(parameter)});
    }
    uses_placed_.resize(layout_.parameters.size());
    if (!training()) return;
    const auto norms = NormRunsByParameter(graph_, range_, options_);
    for (size_t p = 0; p < norms.size(); ++p) {
      for (const std::vector<NormRun>& of_shard : norms[p]) {
        int64_t& mine = layout_.parameters[p].norm_partials.emplace_back();
        for (const NormRun& run : of_shard) mine += run.member == options_.member() ? run.count : 0;
      }
    }
  }

  void AddLayer(size_t node) {
    LayerPlace place;
    for (const ParameterSpec& spec : Parameters(graph_, node, tensor())) {
      const int index = index_of_.at(spec.name);
      place.parameters.push_back(index);
      place.uses.push_back(layout_.parameters[index].use_here[uses_placed_[index]++]);
    }
    place.tensors = NewLayer(graph_.nodes[node], ComputeType(options_.precision), tensor())->Tensors();
    layout_.layers.push_back(std::move(place));
  }

  void PlaceBatch() {
    bool embeds = false, places = false, attends = false, drops = false, ends = false;
    for (size_t i = range_.begin; i < range_.end; ++i) {
      const Node& node = graph_.nodes[i];
      embeds |= node.kind == LayerKind::kEmbedding;
      places |= node.positions > 0 || node.rope_theta > 0;
      attends |= node.kind == LayerKind::kAttention;
      drops |= node.dropout > 0;
      ends |= node.kind == LayerKind::kHead;
    }
    ends_ = ends;
    if (options_.groups > 0) return PlaceGenerationBatch(embeds, places, attends);
    if (embeds) layout_.batch.tokens = stash_.Take(4 * tokens());
    if (ends) layout_.batch.targets = stash_.Take(4 * tokens());
    if (places) layout_.batch.positions = stash_.Take(4 * tokens());
    if (attends) layout_.batch.first_key = stash_.Take(4 * tokens());
    if (drops) layout_.batch.samples = stash_.Take(4 * options_.rows);
  }

  void PlaceGenerationBatch(bool embeds, bool places, bool attends) {
    BatchPlaces& batch = layout_.batch;
    if (embeds) batch.tokens = stash_.Take(4 * tokens());
    if (places || attends) batch.positions = stash_.Take(4 * tokens());
    if (attends) batch.sequences = stash_.Take(4 * tokens());
    if (!ends_) return;
    batch.drawn_sequences = stash_.Take(4 * options_.group_sequences);
    batch.drawn_positions = stash_.Take(4 * options_.group_sequences);
  }

  // A layer's own tensors. Scratch is shared by all layers, and so is the gradient stash where B is whole.
  void PlaceTensors(LayerPlace* layer) {
    Packer scratch, own_gradients;
    Packer* gradients = options_.backward == BackwardForm::kWhole ? &own_gradients : &gradients_;
    for (const LayerTensor& tensor : layer->tensors) PlaceTensor(tensor, layer, &scratch, gradients);
    scratch_bytes_ = std::max(scratch_bytes_, scratch.used());
    own_gradient_bytes_ = std::max(own_gradient_bytes_, own_gradients.used());
  }

  void PlaceTensor(const LayerTensor& tensor, LayerPlace* layer, Packer* scratch, Packer* gradients) {
    const int64_t rows = RowsOf(tensor, tokens(), options_.tensor_parallel);
    const int64_t bytes = rows * tensor.columns * SizeOf(tensor.dtype);
    const bool saved = tensor.lifetime == Lifetime::kSaved, cheap = tensor.lifetime == Lifetime::kCheap;
    Place forward, backward;
    if (tensor.columns == 0) {
      // Not needed with these options.
    } else if (tensor.lifetime == Lifetime::kGradient) {
      if (training()) backward = {Region::kGradientStash, gradients->Take(bytes)};
    } else if (tensor.lifetime == Lifetime::kScratch || !training()) {
      forward = backward = {Region::kScratch, scratch->Take(bytes)};
    } else if (options_.recomputation == Recomputation::kFull && (saved || cheap)) {
      forward = {Region::kScratch, scratch->Take(bytes)};
      backward = {Region::kGradientStash, gradients->Take(bytes)};
      layer->recompute_full = true;
    } else if (options_.recomputation == Recomputation::kSelective && cheap) {
      forward = backward = {Region::kScratch, scratch->Take(bytes)};
      layer->recompute_cheap = true;
    } else {
      forward = backward = {Region::kStash, stash_.Take(bytes)};
    }
    layer->forward.push_back(forward);
    layer->backward.push_back(backward);
  }

  // Activations between the stage's layers stay in the stash, for the backward pass; without one, two places take
  // turns.
  void PlaceOutputs() {
    std::array<int64_t, 2> turn{};
    if (!training()) turn = TakeTurns(&stash_);
    for (size_t i = 0; i + 1 < layout_.layers.size(); ++i) {
      const int64_t bytes = OutputBytes(NodeOf(i));
      layout_.layers[i].output = {Region::kStash, training() ? stash_.Take(bytes) : turn[i % 2]};
    }
  }

  // Gradients between them: each its own place, or, where B is whole, two in turn behind what the layers share.
  void PlaceOutputGradients() {
    if (!training()) return;
    const bool whole = options_.backward == BackwardForm::kWhole;
    std::array<int64_t, 2> turn{};
    if (whole) CHECK_EQ(gradients_.Take(own_gradient_bytes_), 0);
    if (whole) turn = TakeTurns(&gradients_);
    for (size_t i = 0; i + 1 < layout_.layers.size(); ++i) {
      const int64_t bytes = OutputBytes(NodeOf(i));
      layout_.layers[i].output_gradient = {Region::kGradientStash, whole ? turn[i % 2] : gradients_.Take(bytes)};
    }
  }

  // Room for what leaves the even and the odd ones of the layers but the last.
  std::array<int64_t, 2> TakeTurns(Packer* packer) {
    std::array<int64_t, 2> widest{};
    for (size_t i = 0; i + 1 < layout_.layers.size(); ++i) {
      widest[i % 2] = std::max(widest[i % 2], OutputBytes(NodeOf(i)));
    }
    const int64_t even = packer->Take(widest[0]);
    return {even, packer->Take(widest[1])};
  }

  void PlaceArena() {
    StageMemory& memory = layout_.memory;
    Packer arena;
    TrainingPlanner planner(options_, &layout_.parameters, &arena);
    if (training()) {
      planner.PlaceValues();
    } else {
      PlaceValuesToCompute(&arena);
    }
    memory.parameters = arena.used();
    for (ParameterPlace& place : layout_.parameters) PlacePacked(&place, &arena);
    memory.packed = arena.used() - memory.parameters;
    if (training()) layout_.training = planner.PlaceTraining(&memory);
    const int64_t before_cache = arena.used();
    if (options_.groups > 0) PlaceCaches(&arena);
    memory.cache = arena.used() - before_cache;
    memory.stash_slot = stash_.used();
    memory.gradient_stash_slot = gradients_.used();
    layout_.stash = arena.Take(options_.stash_slots * memory.stash_slot);
    layout_.gradient_stash = arena.Take(options_.gradient_stash_slots * memory.gradient_stash_slot);
    PlaceEndOfStep();
    layout_.scratch = arena.Take(scratch_bytes_);
    if (ends_) {
      layout_.losses = arena.Take(4 * options_.micro_batches);
      layout_.logits =
          arena.Take(4 * (options_.groups > 0 ? options_.group_sequences : options_.rows) * graph_.vocabulary);
    }
    memory.scratch = arena.used() - layout_.scratch;
    CHECK_EQ(arena.used(), memory.ArenaBytes(options_.stash_slots, options_.gradient_stash_slots));
  }

  // Weights that are packed are read there alone, unless a table of embeddings is also one: they share one place, from
  // which each is packed in turn.
  void PlaceValuesToCompute(Packer* arena) {
    int64_t widest = 0;
    for (ParameterPlace& place : layout_.parameters) {
      const int64_t bytes = 4 * place.spec.elements();
      place.keeps_value = !place.spec.packed;
      for (const int layer : place.layers) place.keeps_value |= NodeOf(layer).kind == LayerKind::kEmbedding;
      if (place.keeps_value) {
        place.value = arena->Take(bytes);
      } else {
        widest = std::max(widest, bytes);
      }
    }
    const int64_t shared = arena->Take(widest);
    for (ParameterPlace& place : layout_.parameters) {
      if (!place.keeps_value) place.value = shared;
    }
  }

  void PlaceCaches(Packer* arena) {
    for (size_t i = 0; i < layout_.layers.size(); ++i) {
      if (NodeOf(i).kind != LayerKind::kAttention) continue;
      LayerPlace& layer = layout_.layers[i];
      layer.cache_bytes = RoundUpToPiece(cache_bytes_(CacheShapeOf(
          ShardOf(NodeOf(i), tensor()), ComputeType(options_.precision), options_.sequences(), options_.context)));
      layer.cache = arena->Take(layer.cache_bytes);
    }
    if (!ends_) return;
    layout_.rules = arena->Take(options_.sequences() * static_cast<int64_t>(sizeof(SamplingRules)));
    layout_.seen = arena->Take(4 * options_.sequences() * SeenWords(graph_.vocabulary));
    layout_.drawn = arena->Take(4 * options_.micro_batches * options_.group_sequences);
  }

  // What is needed when layers have no use for their scratch any more: a hash of each parameter; and by shards.
  void PlaceEndOfStep() {
    if (!training()) return;
    scratch_bytes_ = std::max(scratch_bytes_, RoundUpToPiece(8 * static_cast<int64_t>(layout_.parameters.size())));
    if (tensor().size == 1) return;
    int64_t shared = 0;
    for (const ParameterPlace& place : layout_.parameters) {
      for (const Slice& slice : place.spec.slices) {
        if (slice.partial_gradient) shared = std::max(shared, slice.elements());
      }
    }
    Packer scratch;
    layout_.shared_elements = std::min(shared, kSharedElements);
    layout_.shared_gradients = scratch.Take(4 * layout_.shared_elements * tensor().size);
    layout_.gathered_norms = scratch.Take(4 * NormPartials(graph_, range_, tensor()));
    scratch_bytes_ = std::max(scratch_bytes_, scratch.used());
  }

  void PlacePacked(ParameterPlace* place, Packer* arena) {
    if (!place->spec.packed) return;
    place->packed_bytes =
        RoundUpToPiece(packed_bytes_({.n = place->spec.rows,
                                      .k = place->spec.columns,
                                      .compute = ComputeType(options_.precision),
                                      .packed_for = training() ? PackedFor::kTraining : PackedFor::kInference}));
    place->packed = arena->Take(place->packed_bytes);
  }

  void PlanMessages() {
    StageMemory& memory = layout_.memory;
    if (range_.begin > 0) {
      const Node& before = graph_.nodes[range_.begin - 1];
      memory.input_message = OutputBytes(before);
      if (training()) memory.input_gradient_message = memory.input_message;
    } else if (options_.groups > 0) {
      memory.input_message = 4 * options_.group_sequences;  // tokens
    }
    if (range_.end < graph_.nodes.size()) {
      const Node& last = graph_.nodes[range_.end - 1];
      memory.output_message = OutputBytes(last);
      if (training()) memory.output_gradient_message = memory.output_message;
    } else if (options_.groups > 0) {
      memory.output_message = 4 * options_.group_sequences;
    }
  }

  const LayerGraph& graph_;
  const NodeRange range_;
  const StageOptions& options_;
  PackedBytesFunction packed_bytes_;
  CacheBytesFunction cache_bytes_;
  bool ends_ = false;  // in the loss
  StageLayout layout_;
  absl::flat_hash_map<std::string, int> index_of_;  // of parameters, by name
  std::vector<size_t> uses_placed_;                 // of each parameter, how many of its uses here have a layer
  Packer stash_, gradients_;
  int64_t scratch_bytes_ = 0;
  int64_t own_gradient_bytes_ = 0;
};

int64_t NoCache(const CacheShape&) {
  CHECK(false) << "generation needs the bytes of its caches";
  return 0;
}

}  // namespace

StageLayout PlanStage(const LayerGraph& graph, NodeRange range, const StageOptions& options,
                      PackedBytesFunction packed_bytes, CacheBytesFunction cache_bytes) {
  CHECK_LT(range.begin, range.end) << "a stage needs layers";
  CHECK_LE(range.end, graph.nodes.size());
  CHECK(options.groups == 0 || (options.purpose == StagePurpose::kInference && options.sequence == 1));
  return Planner(graph, range, options, packed_bytes, cache_bytes).Plan();
}

StageLayout PlanStage(const LayerGraph& graph, NodeRange range, const StageOptions& options,
                      PackedBytesFunction packed_bytes) {
  return PlanStage(graph, range, options, packed_bytes, NoCache);
}

StageMemory PlanStageMemory(const LayerGraph& graph, NodeRange range, const StageOptions& options,
                            PackedBytesFunction packed_bytes, CacheBytesFunction cache_bytes) {
  return PlanStage(graph, range, options, packed_bytes, cache_bytes).memory;
}

StageMemory PlanStageMemory(const LayerGraph& graph, NodeRange range, const StageOptions& options,
                            PackedBytesFunction packed_bytes) {
  return PlanStage(graph, range, options, packed_bytes).memory;
}

int64_t RowsOf(const LayerTensor& tensor, int64_t tokens, const TensorParallel& parallel) {
  switch (tensor.rows) {
    case TensorRows::kAll:
      return tensor.rows_max > 0 ? std::min(tensor.rows_max, tokens) : tokens;
    case TensorRows::kSlice:
      return TokensOf(tokens, parallel).count;
    case TensorRows::kExchange:
      return parallel.size * ShareOf(tokens, parallel.size, parallel.index).count;
  }
  return tokens;
}

int64_t NormPartials(const LayerGraph& graph, NodeRange range, const TensorParallel& tensor) {
  int64_t partials = 0;
  for (size_t node = range.begin; node < range.end; ++node) {
    const std::vector<ParameterSpec> specs = Parameters(graph, node);
    for (size_t i = 0; i < specs.size(); ++i) {
      if (specs[i].tied && NodesWith(graph, specs[i].name).front() != node) continue;
      for (const int64_t of_shard : NormPartialsOf(graph, node, i, tensor)) partials += of_shard;
    }
  }
  return partials;
}

}  // namespace sluice
