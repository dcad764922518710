#include "tests/gpu_sim/barrier_power.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "tests/gpu_sim/memory.h"
#include "tests/gpu_sim/shadow.h"

namespace gpu_sim {
namespace {

// What lies in the memory that a launch writes.
class Snapshot {
 public:
  explicit Snapshot(const std::vector<LaunchRegion>& regions) {
    for (const LaunchRegion& region : regions) {
      std::byte* const data = StorageOf(region.data);
      if (region.bytes == 0 || !Shadow::Get().Contains(data)) continue;
      for (int64_t row = 0; row < region.rows; ++row) Keep(data + row * region.stride, region.bytes);
    }
  }
  void Restore() const {
    const Shadow& shadow = Shadow::Get();
    for (const Kept& kept : kept_) {
      std::memcpy(kept.data, kept.bytes.data(), kept.bytes.size());
      for (size_t i = 0; i < kept.bytes.size(); ++i)
        shadow.SetWritten(shadow.OffsetOf(kept.data + i), 1, kept.written[i]);
    }
  }

 private:
  struct Kept {
    std::byte* data;
    std::vector<std::byte> bytes;
    std::vector<bool> written;
  };
  void Keep(std::byte* data, int64_t bytes) {
    const Shadow& shadow = Shadow::Get();
    Kept& kept = kept_.emplace_back(Kept{.data = data, .bytes = {data, data + bytes}, .written = {}});
    for (int64_t i = 0; i < bytes; ++i) kept.written.push_back(shadow.IsWritten(shadow.OffsetOf(data + i)));
  }

  std::vector<Kept> kept_;
};

}  // namespace

RunResult BarrierPower::Run(const KernelLaunch& launch, const RunOptions& options) {
  const Snapshot before(launch.writes);
  RunResult result = RunEveryThread(launch, options);
  bool again = false;
  for (const std::string& barrier : result.barriers) {
    bool& missed = missed_[absl::StrCat(launch.name, ": ", barrier)];
    if (missed) continue;
    before.Restore();
    missed = !RunEveryThread(launch, {.seed = options.seed, .barrier_left_out = barrier}).reports.empty();
    again = true;
  }
  if (!again) return result;
  before.Restore();
  return RunEveryThread(launch, options);
}

std::vector<std::string> BarrierPower::never_missed() const {
  std::vector<std::string> barriers;
  for (const auto& [barrier, missed] : missed_) {
    if (!missed) barriers.push_back(barrier);
  }
  return barriers;
}

}  // namespace gpu_sim
