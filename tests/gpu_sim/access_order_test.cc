// Races within a launch, for random programs of two blocks of two warps: reported are exactly those that full vector
// clocks of all threads find.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/philox.h"
#include "tests/gpu_sim/access_check.h"
#include "tests/gpu_sim/memory.h"

namespace gpu_sim {
namespace {

constexpr int kThreads = 64, kBlocks = 2, kAgents = kThreads * kBlocks;
constexpr int kBytes = 6;  // of shared memory, and of global memory

enum class Programs {
  kPlain,        // what is reported are exactly the races
  kPartOfWarps,  // with barriers of some lanes: readers of a warp that only these order are taken for unordered
  kAtomics,      // an atomic update hides earlier accesses of its own thread
};

// Every access of every thread, and what each thread knows of each other.
class Reference {
 public:
  Reference() {
    for (int agent = 0; agent < kAgents; ++agent) seen_[agent][agent] = 1;
  }
  void Barrier(const std::vector<int>& agents) {
    std::array<int, kAgents> joined{};
    for (const int agent : agents) {
      for (int other = 0; other < kAgents; ++other) joined[other] = std::max(joined[other], seen_[agent][other]);
    }
    for (const int agent : agents) {
      seen_[agent] = joined;
      ++seen_[agent][agent];
    }
  }
  bool Races(int agent, int place, AccessKind kind) {
    bool races = false;
    for (const Past& past : past_[place]) {
      const bool conflict = (past.kind != AccessKind::kRead || kind != AccessKind::kRead) &&
                            (past.kind != AccessKind::kAtomic || kind != AccessKind::kAtomic);
      races |= conflict && past.agent != agent && past.time > seen_[agent][past.agent];
    }
    past_[place].push_back({agent, seen_[agent][agent], kind});
    return races;
  }

 private:
  struct Past {
    int agent, time;
    AccessKind kind;
  };
  std::array<std::array<int, kAgents>, kAgents> seen_{};
  std::map<int, std::vector<Past>> past_;
};

class Counter : public AccessCheck::Listener {
 public:
  void OnFinding(const Finding& finding) override {
    EXPECT_EQ(finding.kind, FindingKind::kRace);
    ++races;
  }
  int races = 0;
};

// Runs a random program through both. A byte that has had its race is left alone.
class Program {
 public:
  Program(uint64_t seed, Programs kind, AccessCheck* check, std::byte* global)
      : random_(seed), kind_(kind), check_(*check), global_(global) {
    check_.StartLaunch(&counter_);
  }
  void Run() {
    for (block_ = 0; block_ < kBlocks; ++block_) {
      check_.order().StartBlock();
      for (int step = 0; step < 120; ++step) Step();
    }
  }

 private:
  int Draw(int below) {
    random_ = sluice::MixBits(random_);
    return static_cast<int>(random_ % below);
  }
  int Agent(int thread) const { return block_ * kThreads + thread; }

  void Step() {
    const int what = Draw(10);
    if (what == 0) {
      std::vector<int> all;
      for (int thread = 0; thread < kThreads; ++thread) all.push_back(Agent(thread));
      reference_.Barrier(all);
      check_.order().BlockBarrier();
    } else if (what <= 2) {
      const int warp = Draw(2);
      const uint32_t mask =
          kind_ != Programs::kPartOfWarps || Draw(2) == 0 ? ~0u : static_cast<uint32_t>(Draw(1 << 30)) | 1;
      std::vector<int> lanes;
      for (int lane = 0; lane < 32; ++lane) {
        if (mask >> lane & 1) lanes.push_back(Agent(warp * 32 + lane));
      }
      reference_.Barrier(lanes);
      check_.order().WarpBarrier(warp, mask);
    } else {
      Touch(Draw(4) * 20 % kThreads, Draw(2) == 0, Draw(kBytes),
            static_cast<AccessKind>(Draw(kind_ == Programs::kAtomics ? 3 : 2)));
    }
  }

  void Touch(int thread, bool shared, int byte, AccessKind kind) {
    // Each block has its own shared memory.
    const int place = shared ? kBytes * (1 + block_) + byte : byte;
    if (spoilt_[place]) return;
    const bool expected = reference_.Races(Agent(thread), place, kind);
    const int before = counter_.races;
    check_.SetThread(thread);
    std::byte* const address = (shared ? Shadow::Get().arena() : global_) + byte;
    check_.Check(address, 1, kind, reinterpret_cast<const void*>(++places_));
    const bool found = counter_.races > before;
    spoilt_[place] = expected || found;
    ASSERT_TRUE(found || !expected || kind_ == Programs::kAtomics) << "missed: " << Name(thread, place);
    ASSERT_TRUE(expected || !found || kind_ == Programs::kPartOfWarps) << "is none: " << Name(thread, place);
  }
  std::string Name(int thread, int place) const {
    return absl::StrCat("byte ", place, " thread ", thread, " of block ", block_);
  }

  uint64_t random_;
  const Programs kind_;
  AccessCheck& check_;
  std::byte* const global_;
  Reference reference_;
  Counter counter_;
  int block_ = 0;
  std::array<bool, kBytes*(1 + kBlocks)> spoilt_{};
  uintptr_t places_ = 0;
};

class AccessOrder : public testing::TestWithParam<Programs> {};

TEST_P(AccessOrder, RacesAreThoseOfVectorClocks) {
  const Shadow& shadow = Shadow::Get();
  std::byte* const global = StorageOf(AllocateBytes(0, kBytes, std::source_location::current()));
  for (const uintptr_t at : {uintptr_t{0}, shadow.OffsetOf(global)}) {
    for (const bool write : {false, true}) shadow.SetDeclared(at, kBytes, write, true);
    shadow.SetWritten(at, kBytes, true);
  }
  shadow.DropTouched();
  AccessCheck check;
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    Program(seed, GetParam(), &check, global).Run();
    if (HasFatalFailure()) FAIL() << "seed " << seed;
    if (check.order().IsLate()) {
      shadow.DropTouched();
      check.order().Restart();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Programs, AccessOrder,
                         testing::Values(Programs::kPlain, Programs::kPartOfWarps, Programs::kAtomics));

}  // namespace
}  // namespace gpu_sim
