#include "tests/gpu_sim/kernel_run.h"

#include <signal.h>

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/philox.h"
#include "tests/gpu_sim/block.h"
#include "tests/gpu_sim/memory.h"
#include "tests/gpu_sim/source_lines.h"

namespace gpu_sim {
namespace {

const char* Verb(AccessKind kind) {
  switch (kind) {
    case AccessKind::kRead:
      return "reads";
    case AccessKind::kWrite:
      return "writes";
    case AccessKind::kAtomic:
      return "updates";
  }
  return "?";
}

std::string Text(uint3 index) { return absl::StrCat("(", index.x, ",", index.y, ",", index.z, ")"); }

// The handler of faults (memory.cc) can't run on a stack that is full.
void GiveSignalStack() {
  static thread_local std::array<std::byte, 1 << 16> stack;
  const stack_t signal_stack = {.ss_sp = stack.data(), .ss_flags = 0, .ss_size = stack.size()};
  CHECK_EQ(sigaltstack(&signal_stack, nullptr), 0);
}

// All launches use one, so that what they leave in the shadow need not be cleared in between.
AccessCheck& TheCheck() {
  static auto* check = new AccessCheck;
  return *check;
}

class KernelRun : public AccessCheck::Listener, public Block::Listener {
 public:
  KernelRun(const KernelLaunch& launch, const RunOptions& options)
      : launch_(launch),
        options_(options),
        arguments_(launch.arguments),
        block_(launch, arguments_.data(), &check_, this) {
    TranslateToStorage(arguments_.data(), arguments_.size());
  }

  RunResult Run();
  void OnFinding(const Finding& finding) override;
  void OnProblem(const Problem& problem) override;
  bool OnBarrier(const void* pc) override;

 private:
  // Calls visit(offset, bytes) for each row of the regions in device memory.
  template <class Visit>
  void ForRows(const std::vector<LaunchRegion>& regions, const Visit& visit) const;
  void Declare(bool value);
  bool RunBlocks();
  // Makes room for more time, in the middle of a launch.
  void ShortenTime();
  void FindUntouched();
  void Add(const std::string& text) {
    result_.reports.push_back({.kind = ReportKind::kKernel, .text = absl::StrCat(launch_.name, ": ", text)});
  }
  std::string EarlierText(const Access& earlier) const;
  std::string NameOf(int thread) const {
    return absl::StrCat("thread ", Text(block_.IndexOf(thread)), " of block ", Text(block_.block_index()));
  }

  const KernelLaunch& launch_;
  const RunOptions& options_;
  std::vector<std::byte> arguments_;
  const Shadow& shadow_ = Shadow::Get();
  AccessCheck& check_ = TheCheck();
  Block block_;
  std::vector<std::pair<const void*, bool>> barriers_;  // those reached, and whether they count
  RunResult result_;
};

RunResult KernelRun::Run() {
  if (check_.order().IsLate()) {
    shadow_.DropTouched();
    check_.order().Restart();
  }
  Declare(true);
  check_.StartLaunch(this);
  result_.finished = RunBlocks();
  if (result_.finished) FindUntouched();
  Declare(false);
  for (const auto& [pc, counts] : barriers_) result_.barriers.push_back(PlaceOf(pc));
  std::sort(result_.barriers.begin(), result_.barriers.end());
  result_.barriers.erase(std::unique(result_.barriers.begin(), result_.barriers.end()), result_.barriers.end());
  return std::move(result_);
}

template <class Visit>
void KernelRun::ForRows(const std::vector<LaunchRegion>& regions, const Visit& visit) const {
  for (const LaunchRegion& region : regions) {
    const std::byte* const data = StorageOf(region.data);
    if (region.bytes == 0 || !shadow_.Contains(data)) continue;
    for (int64_t row = 0; row < region.rows; ++row) visit(shadow_.OffsetOf(data + row * region.stride), region.bytes);
  }
}

// What isn't there stays undeclared, so that touching it is found.
void KernelRun::Declare(bool value) {
  const auto declare = [&](const std::vector<LaunchRegion>& regions, bool write) {
    ForRows(regions, [&](uintptr_t at, int64_t bytes) {
      const AddressInfo info = FindAddress(shadow_.arena() + at);
      if (info.kind == AddressKind::kLive && info.available >= bytes) shadow_.SetDeclared(at, bytes, write, value);
    });
  };
  declare(launch_.reads, false);
  declare(launch_.writes, true);
  shadow_.SetDeclared(0, launch_.shared_bytes, false, value);
  shadow_.SetDeclared(0, launch_.shared_bytes, true, value);
}

bool KernelRun::RunBlocks() {
  const dim3& grid = launch_.grid;
  std::vector<uint32_t> blocks(static_cast<size_t>(grid.x) * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), 0);
  uint64_t random = sluice::MixBits(options_.seed);
  for (size_t i = blocks.size(); i > 1; --i) {
    random = sluice::MixBits(random);
    std::swap(blocks[i - 1], blocks[random % i]);
  }
  for (const uint32_t block : blocks) {
    if (check_.order().IsLate()) ShortenTime();
    shadow_.SetWritten(0, launch_.shared_bytes, false);
    random = sluice::MixBits(random);
    if (!block_.Run({block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y}, random)) return false;
  }
  return true;
}

// What is only written must be written whole: whoever comes after may read all of it.
void KernelRun::FindUntouched() {
  ForRows(launch_.writes, [&](uintptr_t offset, int64_t bytes) {
    for (uintptr_t at = offset; at < offset + bytes; ++at) {
      const bool is_read = shadow_.declared(at)->read >> at % Shadow::kLine & 1;
      if (is_read || Order::TimeOf(shadow_.touched(at)->write) >= check_.order().launch_start()) continue;
      Add(absl::StrCat("declares that it writes ", DescribeAddress(shadow_.arena() + at),
                       ", and doesn't. Declare what is written, or declare it as read too"));
      return;
    }
  });
}

// An earlier access of this launch was by another block, which is all that still counts of it.
void KernelRun::ShortenTime() {
  const uint32_t start = check_.order().launch_start();
  const auto shorten = [&](uint32_t record) {
    if (Order::TimeOf(record) < start) return 0u;
    return Order::Record(Order::kFirstTime, Order::WhoOf(record), Order::IsAtomic(record));
  };
  std::vector<std::pair<uintptr_t, uintptr_t>> rows;
  const auto add = [&](uintptr_t offset, int64_t bytes) { rows.emplace_back(offset, offset + bytes); };
  ForRows(launch_.reads, add);
  ForRows(launch_.writes, add);
  std::sort(rows.begin(), rows.end());
  uintptr_t done = 0;  // each byte once
  for (const auto& [begin, end] : rows) {
    for (uintptr_t at = std::max(begin, done); at < end; ++at) {
      Touched& touched = *shadow_.touched(at);
      touched = {.write = shorten(touched.write), .read = shorten(touched.read)};
    }
    done = std::max(done, end);
  }
  check_.order().Restart();
  check_.order().StartLaunch();
}

void KernelRun::OnFinding(const Finding& finding) {
  const Access& access = finding.access;
  std::string text = absl::StrCat(PlaceOf(access.pc), ": ", NameOf(Order::WhoOf(access.record)), " ", Verb(access.kind),
                                  " ", access.bytes, " bytes at ", DescribeAddress(access.address));
  switch (finding.kind) {
    case FindingKind::kNoMemory:
      absl::StrAppend(&text, ", which is not the kernel's memory");
      break;
    case FindingKind::kUndeclared:
      absl::StrAppend(&text, ", which its launch doesn't declare");
      break;
    case FindingKind::kNeverWritten:
      absl::StrAppend(&text, ", which nothing has written, or not landed yet");
      break;
    case FindingKind::kMisaligned:
      absl::StrAppend(&text, ", which is no multiple of their number");
      break;
    case FindingKind::kRace:
      absl::StrAppend(&text, EarlierText(finding.earlier));
      break;
  }
  Add(text);
  if (finding.kind == FindingKind::kNoMemory) block_.Stop();
}

std::string KernelRun::EarlierText(const Access& earlier) const {
  const uint32_t who = Order::WhoOf(earlier.record);
  const bool by_this_block =
      who != Order::kSeveralBlocks && Order::TimeOf(earlier.record) >= check_.order().block_start();
  const std::string by = !by_this_block          ? "a thread of another block"
                         : who < Order::kThreads ? NameOf(static_cast<int>(who))
                                                 : "other threads of the block";
  const std::string at = earlier.pc != nullptr ? absl::StrCat(" at ", PlaceOf(earlier.pc)) : "";
  return absl::StrCat(", which ", by, " ", Verb(earlier.kind), at,
                      by_this_block ? " with no barrier in between" : ", and nothing orders blocks");
}

void KernelRun::OnProblem(const Problem& problem) {
  std::string text = absl::StrCat(PlaceOf(problem.pc), ": ", NameOf(problem.thread));
  const auto other = [&] { return NameOf(problem.other); };
  switch (problem.kind) {
    case Problem::Kind::kMissing:
      absl::StrAppend(&text, " waits for ", other(), ", which ",
                      problem.other_pc != nullptr ? absl::StrCat("waits at ", PlaceOf(problem.other_pc))
                                                  : "has ended or never was");
      break;
    case Problem::Kind::kApart:
      absl::StrAppend(&text, " meets ", other(), ", which is at ", PlaceOf(problem.other_pc));
      break;
    case Problem::Kind::kNotInMask:
      absl::StrAppend(&text, " isn't in its own mask");
      break;
    case Problem::Kind::kOutsideMask:
      absl::StrAppend(&text, " asks for the value of a lane outside of the mask");
      break;
    case Problem::Kind::kWidth:
      absl::StrAppend(&text, " shuffles with a width that is no power of two up to 32");
      break;
  }
  Add(text);
}

bool KernelRun::OnBarrier(const void* pc) {
  const auto known = std::find_if(barriers_.begin(), barriers_.end(), [&](const auto& one) { return one.first == pc; });
  if (known != barriers_.end()) return known->second;
  const bool counts = options_.barrier_left_out.empty() || PlaceOf(pc) != options_.barrier_left_out;
  barriers_.emplace_back(pc, counts);
  return counts;
}

}  // namespace

RunResult RunEveryThread(const KernelLaunch& launch, const RunOptions& options) {
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  GiveSignalStack();
  return std::make_unique<KernelRun>(launch, options)->Run();
}

}  // namespace gpu_sim
