// The checks of a job, in three passes: each number alone, numbers together, and all of it against the layer graph.
#pragma once

#include "proto/job.pb.h"
#include "runtime/config/job.h"
#include "runtime/config/problems.h"

namespace sluice {

// More stages than this are a slip of the keyboard.
inline constexpr int64_t kStagesMax = 65536;

void CheckNumbers(const proto::Job& job, Problems& problems);
// Between the first two: reads the job's schedule file, if it has one. What follows from it (ranks, chunks,
// micro-batches) is set where the job leaves it out, and checked where it doesn't.
void FollowScheduleFile(const proto::Job& job, JobConfig& config, Problems& problems);
// Also sets training.gradient_groups where it was left out.
void CheckTogether(JobConfig& config, Problems& problems);
// Also turns `layout.cut_before` into config.layout.layers_per_stage.
void CheckAgainstGraph(const proto::Job& job, JobConfig& config, Problems& problems);

}  // namespace sluice
