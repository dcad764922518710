// A lowered schedule: what the verifier proves, the simulator times and the executor runs. Per rank one list in issue
// order with compute, transfers and end-of-step actions, each with its queue and slots. A plain value.
//
// How it runs (scheduler/README.md has the whole model): one thread per rank issues its list in order. A queue is an
// in-order lane: an action starts when the one before it in its queue has ended and its inputs are there. A SEND ends
// together with its RECV. Issuing a transfer never blocks; issuing a compute action blocks until the RECV of its input
// and the last SEND out of the slot it will write have ended.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "base/ids.h"
#include "scheduler/action.h"
#include "scheduler/schedule.h"

namespace sluice {

enum class QueueKind : uint8_t { kCompute, kCommunication, kCollective };

// A queue id means one lane on every rank that uses it; both ends of a transfer name the same id.
struct Queue {
  QueueKind kind = QueueKind::kCompute;
  std::string name;  // "compute", "up", "3>4", ...
  friend bool operator==(const Queue&, const Queue&) = default;
};

// The pools of slots that a stage has on its rank.
enum class Pool : uint8_t {
  kInput,           // activation entering; bound by RECV_F, or F(s-1) on the same rank; held until W or B
  kOutput,          // activation leaving for another rank; bound by F, free when SEND_F has ended
  kOutputGradient,  // gradient entering from s+1; bound by RECV_B, or I/B(s+1) on the same rank; held until W or B
  kInputGradient,   // gradient leaving for s-1 on another rank; bound by I or B, free when SEND_B has ended
  kStash,           // what F keeps; held until W or B
  kGradientStash,   // what I keeps for W; bound by I, held until W; bound by B until its end
};
inline constexpr int kPoolCount = 6;
const char* PoolName(Pool pool);  // "INPUT", "OUTPUT", "OUTPUT_GRADIENT", ...

// Number of slots of each pool of one (copy, stage).
using PoolSizes = std::array<int32_t, kPoolCount>;

enum class CollectiveKind : uint8_t {
  kTiedGradients,  // sums the gradients of one tensor that several ranks hold
  // REDUCE_GRAD: each holder of a stage, in whatever copy or replica, gets its slice of the partial gradients of all.
  kStageGradients,
  kNorm,             // gathers the partial squared norms of all ranks, those of all replicas
  kSummedGradients,  // before OPTIMIZER_STEP: gathers a stage's gradients, of which each holder has summed its slice
                     // ...
  kParameters,       // ... or after it (ZeRO-1) its parameters, of which each has updated its slice
};
// Whether the members are also the same ranks of the program's other replicas; else each replica has its own.
constexpr bool AcrossReplicas(CollectiveKind kind) { return kind != CollectiveKind::kTiedGradients; }
// Whether it is between the holders of one stage.
constexpr bool IsOfStage(CollectiveKind kind) {
  return kind != CollectiveKind::kTiedGradients && kind != CollectiveKind::kNorm;
}

struct Collective {
  CollectiveKind kind = CollectiveKind::kNorm;
  int tensor = -1;                    // kTiedGradients: the id given in TiedTensor
  std::vector<PipelineRank> members;  // of this pipeline, ascending; each lists it once, all in the same order
  StageId stage = {};                 // IsOfStage
  int copy = 0;                       // kTiedGradients: of the model, whose stages are meant
  friend bool operator==(const Collective&, const Collective&) = default;
};

// What a list does about the step before, whose gradient norm is not yet known everywhere (post-validation).
enum class Validation : uint8_t {
  kNone,        // nothing is open
  kGuessRight,  // POST_VALIDATION finds that the step before was right as it is
  kGuessWrong,  // ... that it was not: the list up to there, which is that of kGuessRight, is discarded and done again
};

struct Program {
  std::string name;
  PassKind pass = PassKind::kTraining;
  Validation validation = Validation::kNone;
  int micro_batches = 0;  // m, of one pipeline
  int groups = 0;         // in generation (ForwardPath)
  int replicas = 1;       // dp: as many pipelines run this program, each on micro-batches of its own
  Placement placement;
  std::vector<std::vector<Action>> ranks;  // per pipeline rank, in issue order
  std::vector<Queue> queues;               // indexed by Action::queue
  std::vector<PoolSizes> pools;            // indexed by Placement::Index
  std::vector<Collective> collectives;     // indexed by Action::collective

  int32_t PoolSize(Pool pool, StageId stage, int copy = 0) const {
    return pools[placement.Index(stage, copy)][static_cast<size_t>(pool)];
  }
  ForwardPath path() const { return {placement.stages(), micro_batches, groups}; }
  // Whether a stage's gradients are spread over several ranks: REDUCE_GRAD is then a collective that each step needs.
  bool Reduces() const { return placement.copies() * replicas > 1; }
  friend bool operator==(const Program&, const Program&) = default;
};

std::vector<int> InFlight(const Program& program);

}  // namespace sluice
