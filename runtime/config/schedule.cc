#include "runtime/config/schedule.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/text.h"
#include "runtime/config/validate.h"
#include "scheduler/csv.h"

namespace sluice {
namespace {

constexpr int64_t kFileBytesMax = int64_t{1} << 30;

// A number that follows from the file: taken over where the job leaves it out.
void Follow(absl::string_view field, bool given, int64_t value, int64_t follows, const std::string& what,
            Problems& problems) {
  if (!given || value == follows) return;
  problems.Add(
      field, absl::StrCat(field, " is ", value, ", but the schedule in ", what, "; leave it out, or write ", follows));
}

}  // namespace

void FollowScheduleFile(const proto::Job& job, JobConfig& config, Problems& problems) {
  const std::string& file = config.schedule.file;
  if (file.empty()) return;
  if (job.schedule().has_name()) {
    problems.Add("schedule.file", "schedule has both a name and a file; give one of them");
    return;
  }
  const absl::StatusOr<std::string> text = ReadSmallFile(file, kFileBytesMax);
  absl::StatusOr<Schedule> schedule = text.ok() ? ReadCsv(*text, file) : absl::StatusOr<Schedule>(text.status());
  if (!schedule.ok()) {
    problems.Add("schedule.file", schedule.status().message());
    return;
  }
  const Placement& placement = schedule->placement;
  const int ranks = placement.ranks(), stages = placement.stages(), chunks = (stages + ranks - 1) / ranks;
  Follow("layout.pp", job.layout().has_pp(), config.layout.pp, ranks, absl::StrCat(file, " has ", ranks, " ranks"),
         problems);
  Follow("layout.chunks", job.layout().has_chunks(), config.layout.chunks, chunks,
         absl::StrCat(file, " has ", stages, " stages on ", ranks, " ranks"), problems);
  const int64_t all = int64_t{schedule->micro_batches} * config.layout.dp;
  Follow("training.micro_batches", job.training().has_micro_batches(), config.training.micro_batches, all,
         absl::StrCat(file, " has ", schedule->micro_batches, " micro-batches",
                      config.layout.dp > 1 ? absl::StrCat(" for each of ", config.layout.dp, " replicas") : ""),
         problems);
  config.layout.pp = ranks;
  config.layout.chunks = chunks;
  config.layout.stages_of_file = stages;
  config.training.micro_batches = all;
  if (job.training().recompute_stages_size() == 0) {
    const auto& recompute = config.training.recompute;
    config.training.recompute.assign(stages, recompute.empty() ? Recomputation::kNone : recompute.front());
  }
  if (job.layout().memory_limit_size() == 1) config.layout.memory_limit.assign(ranks, config.layout.memory_limit[0]);
  config.schedule.from_file = std::make_shared<const Schedule>(*std::move(schedule));
}

absl::StatusOr<Schedule> ScheduleOf(const JobConfig& config, std::vector<PassCosts> costs) {
  if (config.schedule.from_file != nullptr) return *config.schedule.from_file;
  return Generate(config.schedule.name, {.ranks = config.layout.pp,
                                         .chunks = config.layout.chunks,
                                         .micro_batches = config.micro_batches_per_replica(),
                                         .group_size = config.schedule.group_size,
                                         .costs = std::move(costs),
                                         .in_flight_cap = config.schedule.in_flight_cap});
}

}  // namespace sluice
