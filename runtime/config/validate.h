// The checks of a job, in three passes: each number alone, numbers together, and all of it against the layer graph.
#pragma once

#include "proto/job.pb.h"
#include "runtime/config/job.h"
#include "runtime/config/problems.h"

namespace sluice {

// More stages than this are a slip of the keyboard.
inline constexpr int64_t kStagesMax = 65536;

void CheckNumbers(const proto::Job& job, Problems& problems);
void CheckTogether(const JobConfig& config, Problems& problems);
// Also turns `layout.cut_before` into config.layout.layers_per_stage.
void CheckAgainstGraph(const proto::Job& job, JobConfig& config, Problems& problems);

}  // namespace sluice
