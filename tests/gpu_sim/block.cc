#include "tests/gpu_sim/block.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/philox.h"
#include "tests/gpu_sim/source_lines.h"

namespace gpu_sim {
namespace {

thread_local Block* running_block = nullptr;

// The simulator's own code may have been compiled with callbacks too, where the linker chose a kernel's copy of an
// inline function.
class Unchecked {
 public:
  Unchecked() : check_(std::exchange(active_access_check, nullptr)) {}
  ~Unchecked() { active_access_check = check_; }

 private:
  AccessCheck* const check_;
};

// The compiler may have made several calls of one in the source.
bool AreSamePlace(const void* a, const void* b) { return a == b || PlaceOf(a) == PlaceOf(b); }

bool AreAlike(const WarpCall& a, const WarpCall& b) {
  return a.kind == b.kind && a.mask == b.mask && AreSamePlace(a.pc, b.pc);
}

}  // namespace

Block::Block(const KernelLaunch& launch, const std::byte* arguments, AccessCheck* check, Listener* listener)
    : launch_(launch),
      arguments_(arguments),
      check_(check),
      listener_(listener),
      size_(static_cast<int>(launch.block.x * launch.block.y * launch.block.z)),
      fibers_(RunThread, this),
      threads_(size_) {
  ready_.reserve(size_);
  running_block = this;
}

Block::~Block() { running_block = nullptr; }

Block& Block::Running() { return *running_block; }

uint3 Block::IndexOf(int thread) const {
  const unsigned i = static_cast<unsigned>(thread);
  const dim3& size = launch_.block;
  return {i % size.x, i / size.x % size.y, i / size.x / size.y};
}

bool Block::Run(uint3 block, uint64_t seed) {
  block_ = block;
  random_ = seed;
  arrived_ = predicates_ = ended_ = 0;
  waiting_ = {};
  const int reaches[] = {1, kLanes, size_};
  random_ = sluice::MixBits(random_);
  reach_ = reaches[random_ % std::size(reaches)];
  ready_.resize(size_);
  std::iota(ready_.begin(), ready_.end(), 0);
  for (int i = size_ - 1; i > 0; --i) {
    random_ = sluice::MixBits(random_);
    std::swap(ready_[i], ready_[random_ % (i + 1)]);
  }
  for (int i = 0; i < size_; ++i) {
    threads_[i].state = State::kReady;
    threads_[i].groups = 0;
    threads_[i].copies.clear();
    fibers_.Start(i);
  }
  check_->order().StartBlock();
  const Unchecked unchecked;
  fibers_.Switch(Fibers::kMain, TakeNext());
  return !stopped_;
}

void Block::Stop() {
  stopped_ = true;
  fibers_.Switch(current_, Fibers::kMain);
  __builtin_unreachable();
}

void Block::RunThread(void* block, int thread) {
  auto* self = static_cast<Block*>(block);
  self->current_ = thread;
  self->check_->SetThread(thread);
  active_access_check = self->check_;
  self->launch_.call(self->launch_.kernel, self->arguments_);
  active_access_check = nullptr;
  self->threads_[thread].state = State::kEnded;
  ++self->ended_;
  self->SwitchAway();
  __builtin_unreachable();
}

void Block::MakeReady(int thread) {
  threads_[thread].state = State::kReady;
  ready_.push_back(thread);
}

int Block::TakeNext() {
  random_ = sluice::MixBits(random_);
  const size_t among = std::min<size_t>(ready_.size(), reach_);
  std::swap(ready_.back(), ready_[ready_.size() - 1 - random_ % among]);
  const int next = ready_.back();
  ready_.pop_back();
  return next;
}

void Block::SwitchAway() {
  const int self = current_;
  if (!ready_.empty()) {
    fibers_.Switch(self, TakeNext());
  } else {
    if (ended_ < size_) FailStalled();
    fibers_.Switch(self, Fibers::kMain);
  }
  current_ = self;
  check_->SetThread(self);
}

int Block::SyncThreads(int predicate, const void* pc) {
  const Unchecked unchecked;
  if (!listener_->OnBarrier(pc)) return predicate;
  threads_[current_].state = State::kAtBarrier;
  threads_[current_].pc = pc;
  predicates_ += predicate;
  if (++arrived_ == size_) {
    CompleteBarrier();
  } else {
    SwitchAway();
  }
  return barrier_result_;
}

void Block::CompleteBarrier() {
  const void* const pc = threads_[current_].pc;
  for (int i = 0; i < size_; ++i) {
    if (!AreSamePlace(threads_[i].pc, pc)) {
      Fail({.kind = Problem::Kind::kApart, .thread = current_, .pc = pc, .other = i, .other_pc = threads_[i].pc});
    }
    if (i != current_) MakeReady(i);
  }
  threads_[current_].state = State::kReady;
  check_->order().BlockBarrier();
  barrier_result_ = predicates_;
  arrived_ = predicates_ = 0;
}

void Block::RunTogether(WarpCall* call) {
  const Unchecked unchecked;
  if (call->kind == WarpCall::Kind::kSync && !listener_->OnBarrier(call->pc)) return;
  const int self = current_, lane = self % kLanes, warp = self / kLanes;
  if ((call->mask >> lane & 1) == 0) Fail({.kind = Problem::Kind::kNotInMask, .thread = self, .pc = call->pc});
  if (call->width > kLanes || !std::has_single_bit(static_cast<unsigned>(call->width))) {
    Fail({.kind = Problem::Kind::kWidth, .thread = self, .pc = call->pc});
  }
  threads_[self].state = State::kInWarp;
  threads_[self].pc = call->pc;
  threads_[self].call = call;
  waiting_[warp] |= 1u << lane;
  if ((waiting_[warp] & call->mask) == call->mask) {
    CompleteWarp(warp * kLanes, call->mask);
  } else {
    SwitchAway();
  }
}

void Block::CompleteWarp(int first_thread, unsigned mask) {
  const WarpCall& own = *threads_[current_].call;
  WarpCalls calls{};
  for (unsigned left = mask; left != 0; left &= left - 1) {
    const int lane = std::countr_zero(left), thread = first_thread + lane;
    calls[lane] = threads_[thread].call;
    if (!AreAlike(*calls[lane], own)) {
      Fail({.kind = Problem::Kind::kApart,
            .thread = current_,
            .pc = own.pc,
            .other = thread,
            .other_pc = calls[lane]->pc});
    }
    if (thread != current_) MakeReady(thread);
  }
  threads_[current_].state = State::kReady;
  const int warp = first_thread / kLanes;
  waiting_[warp] &= ~mask;
  if (own.kind == WarpCall::Kind::kSync) check_->order().WarpBarrier(warp, mask);
  if (const std::optional<int> lane = gpu_sim::RunTogether(calls)) {
    Fail({.kind = Problem::Kind::kOutsideMask, .thread = first_thread + *lane, .pc = own.pc});
  }
}

void Block::CheckAccess(const void* address, int bytes, AccessKind kind, const void* pc) {
  const Unchecked unchecked;
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) check_->FindMisaligned(address, bytes, kind, pc);
  check_->Check(address, bytes, kind, pc);
}

void Block::CheckShared(const void* address, int bytes, AccessKind kind, const void* pc) {
  const Unchecked unchecked;
  if (Shadow::Get().OffsetOf(address) >= Shadow::kSharedBytes) check_->FindNoMemory(address, bytes, kind, pc);
  CheckAccess(address, bytes, kind, pc);
}

void Block::CopyAsync(void* shared, const void* global, int bytes, const void* pc) {
  CheckShared(shared, kAsyncBytes, AccessKind::kWrite, pc);
  if (bytes > 0) CheckAccess(global, kAsyncBytes, AccessKind::kRead, pc);
  const Unchecked unchecked;
  AsyncCopy copy{.shared = shared, .value = {}, .group = threads_[current_].groups, .pc = pc};
  std::memcpy(&copy.value, global, bytes);
  threads_[current_].copies.push_back(copy);
  check_->MarkPending(shared, kAsyncBytes);
}

void Block::CommitAsync() { ++threads_[current_].groups; }

void Block::WaitAsync(int pending, const void* pc) {
  const Unchecked unchecked;
  if (!listener_->OnBarrier(pc)) return;
  Thread& thread = threads_[current_];
  const auto still = std::find_if(thread.copies.begin(), thread.copies.end(),
                                  [&](const AsyncCopy& copy) { return copy.group >= thread.groups - pending; });
  for (auto copy = thread.copies.begin(); copy != still; ++copy) Land(*copy);
  thread.copies.erase(thread.copies.begin(), still);
}

void Block::Land(const AsyncCopy& copy) {
  check_->Check(copy.shared, kAsyncBytes, AccessKind::kWrite, copy.pc);
  std::memcpy(copy.shared, &copy.value, kAsyncBytes);
}

void Block::Fail(const Problem& problem) {
  listener_->OnProblem(problem);
  Stop();
}

void Block::FailStalled() {
  const auto waits = std::find_if(threads_.begin(), threads_.end(),
                                  [](const Thread& thread) { return thread.state != State::kEnded; });
  Fail(MissingFor(static_cast<int>(waits - threads_.begin())));
}

// Whom the thread waits for in vain.
Problem Block::MissingFor(int thread) const {
  const Thread& waits = threads_[thread];
  const int first = waits.state == State::kInWarp ? thread / kLanes * kLanes : 0;
  const int end = waits.state == State::kInWarp ? first + kLanes : size_;
  Problem problem{.kind = Problem::Kind::kMissing, .thread = thread, .pc = waits.pc};
  for (int other = first; other < end; ++other) {
    if (waits.state == State::kInWarp && (waits.call->mask >> other % kLanes & 1) == 0) continue;
    if (other < size_ && threads_[other].state == waits.state && AreSamePlace(threads_[other].pc, waits.pc)) continue;
    problem.other = other;
    problem.other_pc = other < size_ && threads_[other].state != State::kEnded ? threads_[other].pc : nullptr;
    break;
  }
  return problem;
}

}  // namespace gpu_sim
