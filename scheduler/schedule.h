// A schedule: in which order each rank computes on which stage and micro-batch. Compute actions only; transfers, queues
// and slots are added by lowering (lowering.h). A plain value made by a generator or read from a CSV.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "scheduler/action.h"

namespace sluice {

// Which pipeline rank holds which stage of which copy of the model. It belongs to the schedule, never to the trainer.
class Placement {
 public:
  Placement() = default;
  // `ranks_of_stages[copy * stages + stage]`.
  Placement(int ranks, int stages, int copies, std::vector<PipelineRank> ranks_of_stages);

  static Placement Loop(int ranks, int chunks);  // stage s on rank s mod p
  static Placement V(int ranks);                 // 2p stages, down and up again
  static Placement Wave(int ranks, int waves);   // 2p stages a wave, like V repeated (Hanayo)
  static Placement Bidirectional(int ranks);     // copy 1 runs against copy 0 (DualPipe, Chimera)

  int ranks() const { return ranks_; }
  int stages() const { return stages_; }
  int copies() const { return copies_; }
  PipelineRank RankOf(StageId stage, int copy = 0) const { return ranks_of_stages_[Index(stage, copy)]; }
  // Dense index of (copy, stage), for tables.
  size_t Index(StageId stage, int copy) const { return static_cast<size_t>(copy) * stages_ + stage.index(); }
  friend bool operator==(const Placement&, const Placement&) = default;

 private:
  int ranks_ = 0;
  int stages_ = 0;
  int copies_ = 1;
  std::vector<PipelineRank> ranks_of_stages_;
};

// A stage's work on one micro-batch.
struct StageItem {
  StageId stage;
  MicroBatch micro_batch;
  friend bool operator==(const StageItem&, const StageItem&) = default;
};

// Which way activations go: from each stage to the next and, in generation, from the last one back to the first. There
// a micro-batch stands for one round of one of `groups` groups of sequences, number round * groups + group, and what
// leaves the last stage are the tokens with which the group's next round begins.
struct ForwardPath {
  int stages = 0;
  int micro_batches = 0;
  int groups = 0;  // 0: no generation, nothing goes back

  std::optional<StageItem> Next(StageId stage, MicroBatch i) const {
    if (stage.value() + 1 < stages) return StageItem{StageId(stage.value() + 1), i};
    if (groups == 0 || i.value() + groups >= micro_batches) return std::nullopt;
    return StageItem{StageId(0), MicroBatch(i.value() + groups)};
  }
  std::optional<StageItem> Previous(StageId stage, MicroBatch i) const {
    if (stage.value() > 0) return StageItem{StageId(stage.value() - 1), i};
    if (groups == 0 || i.value() < groups) return std::nullopt;
    return StageItem{StageId(stages - 1), MicroBatch(i.value() - groups)};
  }
  // What a SEND_F or RECV_F moves the result of. REQUIRES: there is such a message.
  StageItem Source(const Action& transfer) const {
    const StageItem mine{transfer.stage, transfer.micro_batch};
    return transfer.kind == ActionKind::kRecvForward ? *Previous(mine.stage, mine.micro_batch) : mine;
  }
};

enum class PassKind : uint8_t {
  kTraining,
  kForwardOnly,
  kValidation,  // no step of its own: settles the one before (lowering.h, post-validation)
};

struct Schedule {
  std::string name;
  PassKind pass = PassKind::kTraining;
  int micro_batches = 0;  // m, over all copies
  int groups = 0;         // in generation (ForwardPath)
  Placement placement;
  std::vector<std::vector<Action>> ranks;  // per pipeline rank, in order

  ForwardPath path() const { return {placement.stages(), micro_batches, groups}; }
  friend bool operator==(const Schedule&, const Schedule&) = default;
};

// Which of `copies` copies of the model works on a micro-batch: contiguous, equal shares of the m micro-batches.
int CopyOf(MicroBatch micro_batch, int micro_batches, int copies);

// Most micro-batches in flight in each stage (a forward pass counts until its W or B, that one included), indexed by
// Placement::Index. The partitioner and the memory estimate start from it. Forward-only: 1.
std::vector<int> InFlight(PassKind pass, const Placement& placement, const std::vector<std::vector<Action>>& ranks);
std::vector<int> InFlight(const Schedule& schedule);

// One line per rank: "0F0 0F1 0B0 ...".
std::string ToText(const std::vector<std::vector<Action>>& ranks);

}  // namespace sluice
