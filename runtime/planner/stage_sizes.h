// Bytes of any run of layers as a stage of a job, before the cuts are known.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <tuple>

#include "runtime/config/job.h"
#include "scheduler/program.h"
#include "stages/stage_layout.h"

namespace sluice {

// How the job splits layers; of the first shard, which holds the most where they don't divide.
TensorParallel TensorParallelOf(const JobConfig& job);

// Options of a stage of the first shard whose slots are `pools`. REQUIRES: `training` is the job's lowered schedule.
StageOptions OptionsFor(const JobConfig& job, const Program& training, const PoolSizes& pools, Recomputation recompute);

class StageSizes {
 public:
  // All outlive it.
  StageSizes(const JobConfig& job, const Program& training,
             const std::function<int64_t(const LinearShape&)>& packed_bytes);

  StageMemory Memory(int stage, NodeRange range) { return Of(stage, range).memory; }
  int64_t NormPartials(int stage, NodeRange range) { return Of(stage, range).norm_partials; }
  // All that the stage brings to its rank: its arena, its message slots and its part of the norm's buffers.
  int64_t Bytes(int stage, NodeRange range);
  // By how much more layers may need less than some of them (PartitionProblem::bytes_dip): other messages, and the
  // partial sums of a tied weight that has all its uses in the stage.
  int64_t BytesDip() const;
  // What the rank holds whatever its stages, counted with the first stage it has.
  int64_t RankOverhead(int stage) const;

 private:
  struct Sizes {
    StageMemory memory;
    int64_t norm_partials = 0;
  };
  const Sizes& Of(int stage, NodeRange range);
  int64_t PackedBytes(const LinearShape& shape);

  const JobConfig& job_;
  const Program& training_;
  const std::function<int64_t(const LinearShape&)>& packed_bytes_;
  std::map<std::tuple<int64_t, int64_t, DType>, int64_t> packed_;
  std::map<std::tuple<Recomputation, size_t, size_t>, Sizes> sizes_;  // the partitioner asks for the same ones again
  int64_t all_partials_ = 0;
};

}  // namespace sluice
