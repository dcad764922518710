// One block of a kernel: its CUDA threads as fibers, of which one runs until it has to wait for others. Which goes on
// next is a seed's choice. Barriers and what warps do together happen when the last of those has come who take part;
// what can never happen, since somebody has ended or waits elsewhere, is a problem, and stops the launch.
//
// Threads: the one that runs it.
#pragma once

#include <array>
#include <functional>
#include <vector>

#include "tests/gpu_sim/access_check.h"
#include "tests/gpu_sim/fibers.h"
#include "tests/gpu_sim/include/gpu_sim_launch.h"
#include "tests/gpu_sim/warp_calls.h"

namespace gpu_sim {

// Why the threads of a block cannot go on.
struct Problem {
  enum class Kind : uint8_t {
    kMissing,      // `thread` waits for `other`
    kApart,        // both wait, but not for the same
    kNotInMask,    // `thread` is not in its own mask
    kOutsideMask,  // `thread` shuffles from a lane that is not in the mask
    kWidth,        // a shuffle's width is not a power of two up to 32
  } kind;
  int thread = 0;
  const void* pc = nullptr;  // where it waits
  int other = 0;
  const void* other_pc = nullptr;  // null: it has ended, or never was
};

class Block {
 public:
  class Listener {
   public:
    virtual ~Listener() = default;
    // Whether this barrier is there: one of the block, of a warp, or the wait for a thread's asynchronous copies.
    virtual bool OnBarrier(const void* pc) = 0;
    virtual void OnProblem(const Problem& problem) = 0;
  };

  // All outlive the block. `arguments` are translated to storage.
  Block(const KernelLaunch& launch, const std::byte* arguments, AccessCheck* check, Listener* listener);
  ~Block();
  // Runs a block to its end; false: there was a problem, or Stop was called.
  bool Run(uint3 block, uint64_t seed);
  // Ends the run; the thread that calls it never goes on.
  [[noreturn]] void Stop();

  // Of the calling OS thread. REQUIRES: one of its CUDA threads runs.
  static Block& Running();
  uint3 thread_index() const { return IndexOf(current_); }
  int thread() const { return current_; }
  uint3 IndexOf(int thread) const;
  uint3 block_index() const { return block_; }
  const KernelLaunch& launch() const { return launch_; }

  // For the CUDA thread that runs (device_side.h).
  int SyncThreads(int predicate, const void* pc);
  void RunTogether(WarpCall* call);
  void CheckAccess(const void* address, int bytes, AccessKind kind, const void* pc);
  void CheckShared(const void* address, int bytes, AccessKind kind, const void* pc);
  void CopyAsync(void* shared, const void* global, int bytes, const void* pc);
  void CommitAsync();
  void WaitAsync(int pending, const void* pc);

 private:
  static constexpr int kAsyncBytes = 16;  // of one cp.async
  enum class State : uint8_t { kReady, kAtBarrier, kInWarp, kEnded };
  struct AsyncCopy {
    void* shared;
    uint4 value;
    int group;
    const void* pc;
  };
  struct Thread {
    State state = State::kReady;
    const void* pc = nullptr;  // where it waits
    WarpCall* call = nullptr;
    int groups = 0;  // of copies, committed so far
    std::vector<AsyncCopy> copies;
  };

  static void RunThread(void* block, int thread);
  void MakeReady(int thread);
  int TakeNext();
  // The running thread waits, or has ended.
  void SwitchAway();
  void CompleteBarrier();
  void CompleteWarp(int first_thread, unsigned mask);
  void Land(const AsyncCopy& copy);
  void Fail(const Problem& problem);
  // Nobody can go on, and not all have ended.
  void FailStalled();
  Problem MissingFor(int thread) const;

  const KernelLaunch& launch_;
  const std::byte* const arguments_;
  AccessCheck* const check_;
  Listener* const listener_;
  const int size_;
  Fibers fibers_;
  std::vector<Thread> threads_;
  std::array<unsigned, Order::kThreads / kLanes> waiting_{};  // lanes of each warp that wait in a call

  uint3 block_{};
  uint64_t random_ = 0;
  int reach_ = 1;  // how many of the latest ready ones may go on next: 1 lets threads run far ahead of others
  std::vector<int> ready_;
  int current_ = Fibers::kMain;
  int ended_ = 0;
  bool stopped_ = false;
  int arrived_ = 0, predicates_ = 0;  // at the block's barrier
  int barrier_result_ = 0;
};

}  // namespace gpu_sim
