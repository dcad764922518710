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
  int gradient_groups = 1;  // G, a multiple of `copies`
  int copy = 0;             // of the model, which this stage belongs to
  int copies = 1;
  TensorParallel tensor_parallel;  // this shard of the stage
  int stash_slots = 1;
  int gradient_stash_slots = 1;
  bool keeps_state = false;  // room for a copy of what the optimizer overwrites (post-validation)
  uint64_t seed = 0;         // of initial weights and dropout
  AdamWOptions adam;
  // For profiles, by the issuing thread: what is issued from now on; null: work of no layer. May be empty.
  std::function<void(const LayerWork* work)> on_layer;
};

// PackedLinearBytes of the device's operations.
using PackedBytesFunction = absl::FunctionRef<int64_t(const LinearShape&)>;

// Bytes of one stage, as allocated (every piece rounded up to 64).
struct StageMemory {
  int64_t parameters = 0;           // f32 masters
  int64_t packed = 0;               // weights as the device multiplies them
  int64_t gradients = 0;            // f32: groups x uses
  int64_t optimizer = 0;            // AdamW's m and v
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
    return parameters + packed + gradients + optimizer + kept + scratch + stash_slots * stash_slot +
           gradient_stash_slots * gradient_stash_slot;
  }
  friend bool operator==(const StageMemory&, const StageMemory&) = default;
};

// REQUIRES: a valid graph and a range within it that isn't empty.
StageMemory PlanStageMemory(const LayerGraph& graph, NodeRange range, const StageOptions& options,
                            PackedBytesFunction packed_bytes);

// Squared-norm partials that the stage answers for (Stage::norm_partials): those of all its shards.
int64_t NormPartials(const LayerGraph& graph, NodeRange range, const TensorParallel& tensor = {});

// --- What LayerStage is built from ---

// Offsets from the start of the arena.
struct ParameterPlace {
  ParameterSpec spec;
  int uses = 1;               // in the whole graph
  std::vector<int> use_here;  // which of them are in this stage, ascending
  // Of its squared-norm partials, those that each shard makes; none where another stage answers for it, which has its
  // first use.
  std::vector<int64_t> norm_partials;
  int64_t value = 0;
  int64_t packed = -1;  // -1: none
  int64_t packed_bytes = 0;
  int64_t gradients = -1;  // [uses, G, elements]
  int64_t mine = -1;       // [G, elements], where other stages hold uses; else partials are written into `gradients`
  int64_t m = -1;
  int64_t v = -1;
  int64_t kept = -1;  // [3, elements]: value, m, v; -1: nothing is kept
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
};

// Offsets into a stash slot of the device copies of a micro-batch's facts; -1: no layer reads it.
struct BatchPlaces {
  int64_t tokens = -1, targets = -1, positions = -1, first_key = -1, samples = -1;
};

struct StageLayout {
  std::vector<ParameterPlace> parameters;
  std::vector<LayerPlace> layers;
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
  StageMemory memory;
};

// Rows that a layer's tensor has, with so many tokens in the micro-batch.
int64_t RowsOf(const LayerTensor& tensor, int64_t tokens, const TensorParallel& parallel);

StageLayout PlanStage(const LayerGraph& graph, NodeRange range, const StageOptions& options,
                      PackedBytesFunction packed_bytes);

}  // namespace sluice
