// Where everything of a stage lies in its one allocation, as a pure function of the graph, the cut and the options.
// What `sluice plan` prints and what LayerStage allocates are the same numbers.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/operations.h"
#include "stages/gradient_slices.h"
#include "stages/graph.h"
#include "stages/layer.h"
#include "stages/parameters.h"
#include "stages/tensor_parallel.h"

namespace sluice {

// Nodes begin ... end-1 of the graph.
struct NodeRange {
  size_t begin = 0;
  size_t end = 0;
};

enum class StagePurpose : uint8_t {
  kTraining,
  kInference,  // forward only: no gradients, no optimizer state
};

// Which backward actions the schedule has.
enum class BackwardForm : uint8_t {
  kWhole,  // B alone: the layers take turns in one small gradient stash
  kSplit,  // I and W (and B): every layer's output gradients live from I to W
};

struct AdamWOptions {
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float epsilon = 1e-8f;
  float weight_decay = 0.1f;
};

// What a stage issues next: a pass of a node's layer.
enum class LayerPass : uint8_t { kForward, kInputGradient, kWeightGradient };
inline constexpr int kLayerPasses = 3;
struct LayerWork {
  size_t node = 0;  // of the graph
  LayerPass pass = LayerPass::kForward;
};

struct StageOptions {
  Precision precision = Precision::kF32;
  Recomputation recomputation = Recomputation::kNone;
  StagePurpose purpose = StagePurpose::kTraining;
  BackwardForm backward = BackwardForm::kWhole;
  int64_t rows = 1;  // B and T at most, of any micro-batch
  int64_t sequence = 1;
  int micro_batches = 1;    // of a step in this pipeline
  int gradient_groups = 1;  // G, a multiple of members()
  int copy = 0;             // of the model, which this stage belongs to, in the schedule ...
  int copies = 1;
  int replica = 0;  // ... and among the pipelines of a data-parallel job
  int replicas = 1;
  bool zero1 = false;  // where there are several members: m and v only for the slice, which alone is updated
  int64_t bucket_bytes = kBucketBytes;
  TensorParallel tensor_parallel;  // this shard of the stage
  // Of generation, with StagePurpose::kInference: so many groups of so many sequences, of at most `context` tokens,
  // whose keys and values are kept. A group's tokens are rows of their own, at most `rows` (T = 1) in one micro-batch.
  // 0: none.
  int64_t groups = 0;
  int64_t group_sequences = 0;
  int64_t context = 0;
  int stash_slots = 1;
  int gradient_stash_slots = 1;
  bool keeps_state = false;  // room for a copy of what the optimizer overwrites (post-validation)
  uint64_t seed = 0;         // of initial weights and dropout
  AdamWOptions adam;
  // For profiles, by the issuing thread: what is issued from now on; null: work of no layer. May be empty.
  std::function<void(const LayerWork* work)> on_layer;

  // All holders of the stage, each with an equal share of the gradient groups, in the order of the groups.
  int members() const { return copies * replicas; }
  int member() const { return replica * copies + copy; }
  int64_t sequences() const { return groups * group_sequences; }
};

// PackedLinearBytes of the device's operations.
using PackedBytesFunction = absl::FunctionRef<int64_t(const LinearShape&)>;
// KeyValueCacheBytes of them.
using CacheBytesFunction = absl::FunctionRef<int64_t(const CacheShape&)>;

// Bytes of one stage, as allocated (every piece rounded up to 64).
struct StageMemory {
  int64_t parameters = 0;           // f32 masters; in inference of what isn't packed, and room to pack from
  int64_t packed = 0;               // weights as the device multiplies them
  int64_t gradients = 0;            // f32: groups x uses; with several members its own groups', and its slice of all
  int64_t optimizer = 0;            // AdamW's m and v; with ZeRO-1 of the largest slice
  int64_t cache = 0;                // keys and values, and how each sequence draws
  int64_t kept = 0;                 // copy of parameters, m and v, until a step is known to be right
  int64_t stash_slot = 0;           // of one micro-batch, F to W or B
  int64_t gradient_stash_slot = 0;  // of one micro-batch, I to W or within B
  int64_t scratch = 0;              // within one action, losses and wanted logits included
  // One message slot of each pool; 0 where the pool isn't there.
  int64_t input_message = 0;
  int64_t output_message = 0;
  int64_t output_gradient_message = 0;
  int64_t input_gradient_message = 0;

  // What the stage allocates; message slots are their owner's.
  int64_t ArenaBytes(int stash_slots, int gradient_stash_slots) const {
    return parameters + packed + gradients + optimizer + cache + kept + scratch + stash_slots * stash_slot +
           gradient_stash_slots * gradient_stash_slot;
  }
  friend bool operator==(const StageMemory&, const StageMemory&) = default;
};

// REQUIRES: a valid graph and a range within it that isn't empty; with groups, generation's own form.
StageMemory PlanStageMemory(const LayerGraph& graph, NodeRange range, const StageOptions& options,
                            PackedBytesFunction packed_bytes);
StageMemory PlanStageMemory(const LayerGraph& graph, NodeRange range, const StageOptions& options,
                            PackedBytesFunction packed_bytes, CacheBytesFunction cache_bytes);

// Squared-norm partials that all members of the stage answer for (Stage::norm_partials): those of all its shards ...
int64_t NormPartials(const LayerGraph& graph, NodeRange range, const TensorParallel& tensor = {});
// ... and which member has which of them, in global order: parameter after parameter, in each shard after shard.
std::vector<NormRun> NormRuns(const LayerGraph& graph, NodeRange range, const StageOptions& options);

// --- What LayerStage is built from ---

// Offsets from the start of the arena.
struct ParameterPlace : StageParameter {
  // Of its squared-norm partials, those that each shard of this member makes; none where another stage answers for it.
  std::vector<int64_t> norm_partials;
  int64_t value = 0;
  bool keeps_value = true;  // false: it is where others are too, only to be packed from
  int64_t packed = -1;      // -1: none
  int64_t packed_bytes = 0;
  // Of each use here, this member's partials [share of the groups, elements], and bytes from one to the next; empty: no
  // training.
  std::vector<int64_t> partials;
  int64_t partial_stride = 0;
};

// Elements of a parameter whose gradient this member sums, from all partials, and whose norm partials it makes.
struct SumPlace {
  int parameter = 0;
  int64_t begin = 0;  // first element, and how many
  int64_t count = 0;
  int64_t partials = 0;  // of use 0 and group 0, and bytes from one ...
  int64_t use_stride = 0;
  int64_t member_stride = 0;  // ... to the same of the next member,
  int64_t group_stride = 0;   // and to the next group of the same member
  int64_t sum = 0;
};

// Elements of a parameter that this member updates.
struct UpdatePlace {
  int parameter = 0;
  int64_t begin = 0;
  int64_t count = 0;
  int64_t gradient = 0;
  int64_t m = 0;
  int64_t v = 0;
  int64_t kept = -1;  // [3, count]: value, m, v; -1: nothing is kept
};

// What the members exchange, as offsets; bytes of what lies there.
struct ArenaPiece {
  int64_t offset = 0;
  int64_t bytes = 0;
};
struct ReductionPlace {  // an all-to-all
  int layer = 0;         // after whose weight gradient `mine` is there: layers go backwards
  ArenaPiece mine;
  std::vector<int64_t> parts;
  ArenaPiece all;
};
struct GatherPlace {
  ArenaPiece mine;
  std::vector<int64_t> parts;  // of the members; empty: all as large as `mine`
  ArenaPiece all;
};
struct TiedPlace {  // a gather over the stages that have the parameter
  int parameter = 0;
  int piece = 0;  // of the parameter, the same in all of them
  GatherPlace gather;
};

// Of training alone.
struct TrainingLayout {
  std::vector<SumPlace> sums;        // in global order
  std::vector<UpdatePlace> updates;  // in global order
  std::vector<ReductionPlace> reductions;
  std::vector<TiedPlace> tied;
  std::vector<GatherPlace> gathers;  // of summed gradients, or with ZeRO-1 of parameters
};

// A piece of a stash slot, a gradient stash slot, or the scratch.
struct Place {
  enum class Region : uint8_t { kNone, kStash, kGradientStash, kScratch };
  Region region = Region::kNone;
  int64_t offset = 0;  // from the start of the slot or the scratch
};

struct LayerPlace {
  std::vector<int> parameters;  // indices into StageLayout::parameters, in the layer's order
  std::vector<int> uses;        // for each, which use of it this layer is
  std::vector<LayerTensor> tensors;
  std::vector<Place> forward;    // of each tensor, in F ...
  std::vector<Place> backward;   // ... and in I, W and B
  bool recompute_full = false;   // forward again at the beginning of I
  bool recompute_cheap = false;  // cheap tensors again at the beginning of W
  // Its output and the gradient of it; for the last layer in message slots, which is kNone here.
  Place output;
  Place output_gradient;
  int64_t cache = -1;  // of keys and values, in the arena; -1: none
  int64_t cache_bytes = 0;
};

// Offsets into a stash slot of the device copies of a micro-batch's facts; -1: no layer reads it.
struct BatchPlaces {
  int64_t tokens = -1, targets = -1, positions = -1, first_key = -1, samples = -1;
  int64_t sequences = -1, drawn_sequences = -1, drawn_positions = -1;  // of generation
};

struct StageLayout {
  std::vector<ParameterPlace> parameters;
  std::vector<LayerPlace> layers;
  TrainingLayout training;
  BatchPlaces batch;
  int64_t stash = 0;  // offsets from the start of the arena
  int64_t gradient_stash = 0;
  int64_t scratch = 0;
  // In the scratch, of a shard at the end of a step: [shards, shared_elements] for gradients that are summed over
  // shards so many at a time, and room for all norm partials.
  int64_t shared_gradients = -1;
  int64_t shared_elements = 0;
  int64_t gathered_norms = -1;
  int64_t losses = -1;  // [micro_batches]; -1: no loss here ...
  int64_t logits = -1;  // ... and [rows, V]: a token of each row, of the last forward pass that was to make them
  // Of generation, where the loss would be: [sequences] SamplingRules, which tokens each has, and what was drawn last.
  int64_t rules = -1, seen = -1;
  int64_t drawn = -1;  // [micro_batches, group_sequences]
  StageMemory memory;
};

// Rows that a layer's tensor has, with so many tokens in the micro-batch.
int64_t RowsOf(const LayerTensor& tensor, int64_t tokens, const TensorParallel& parallel);

StageLayout PlanStage(const LayerGraph& graph, NodeRange range, const StageOptions& options,
                      PackedBytesFunction packed_bytes);
StageLayout PlanStage(const LayerGraph& graph, NodeRange range, const StageOptions& options,
                      PackedBytesFunction packed_bytes, CacheBytesFunction cache_bytes);

}  // namespace sluice
