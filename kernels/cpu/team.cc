#include "kernels/cpu/team.h"

#include <pthread.h>
#include <sched.h>
#if defined(__SSE__)
#include <immintrin.h>
#endif

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include "base/check.h"
#include "kernels/cpu/large_pages.h"

// Debian's oneDNN is built over libgomp, whose number of threads is a property of the calling thread.
extern "C" void omp_set_num_threads(int threads);

namespace sluice::cpu {
namespace {

// About 20 microseconds of looking before a thread sleeps: a futex wake-up costs as much.
constexpr int kSpins = 500;

// Team threads of this process that may want a processor; with more of them than processors, spinning only steals time.
std::atomic<int> live_threads{0};

void Pause() {
#if defined(__SSE__)
  _mm_pause();
#endif
}

// The library stays single-threaded on every thread that computes.
void PrepareThread() {
  thread_local const bool prepared = [] {
    omp_set_num_threads(1);
    return true;
  }();
  (void)prepared;
}

// Denormals cost a hundred cycles each, and gradients are full of them late in training.
class FlushDenormals {
 public:
#if defined(__SSE__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  const unsigned saved_;
#endif
};

void PinTo(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (processor < 0 || processor >= CPU_SETSIZE) return;
  CPU_SET(processor, &set);
  sched_setaffinity(0, sizeof(set), &set);  // a wish: an error leaves the thread unpinned
}

}  // namespace

// A job is open from its start until its owner has found no more blocks. Helpers enter an open job under the mutex, so
// one that wakes up late finds it closed, and the owner waits only for those inside.
struct Team::State {
  explicit State(int size, std::vector<int> processors) : spin_limit(std::thread::hardware_concurrency()) {
    live_threads += size;
    for (int i = 1; i < size; ++i) {
      const int processor = static_cast<size_t>(i) < processors.size() ? processors[i] : -1;
      helpers.emplace_back([this, processor] { Help(processor); });
    }
  }

  ~State() {
    {
      std::lock_guard lock(mutex);
      closing = true;
      job_number.fetch_add(1, std::memory_order_release);
    }
    work.notify_all();
    for (std::thread& helper : helpers) helper.join();
    live_threads -= static_cast<int>(helpers.size()) + 1;
  }

  template <class Predicate>
  void Spin(Predicate predicate) const {
    if (live_threads.load(std::memory_order_relaxed) > spin_limit) return;
    for (int i = 0; i < kSpins && !predicate(); ++i) Pause();
  }

  void Help(int processor) {
    pthread_setname_np(pthread_self(), "team");
    PinTo(processor);
    PrepareThread();
    FlushDenormals flush;
    uint64_t seen = 0;
    while (true) {
      Spin([&] { return job_number.load(std::memory_order_acquire) != seen; });
      std::unique_lock lock(mutex);
      ++sleepers;
      work.wait(lock, [&] { return job_number.load(std::memory_order_relaxed) != seen; });
      --sleepers;
      if (closing) return;
      seen = job_number.load(std::memory_order_relaxed);
      if (body == nullptr) continue;
      inside.fetch_add(1, std::memory_order_relaxed);
      lock.unlock();
      TakeBlocks();
      lock.lock();
      if (inside.fetch_sub(1, std::memory_order_release) == 1) left.notify_one();
    }
  }

  void TakeBlocks() {
    try {
      for (int64_t block; (block = next.fetch_add(1, std::memory_order_relaxed)) < blocks;) (*body)(block);
    } catch (...) {
      next.store(blocks, std::memory_order_relaxed);
      std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  }

  void Run(int64_t count, absl::FunctionRef<void(int64_t)> function) {
    bool wake;
    {
      std::lock_guard lock(mutex);
      body = &function;
      blocks = count;
      next.store(0, std::memory_order_relaxed);
      job_number.fetch_add(1, std::memory_order_release);
      wake = sleepers > 0;
    }
    if (wake) work.notify_all();
    TakeBlocks();
    Spin([&] { return inside.load(std::memory_order_acquire) == 0; });
    std::unique_lock lock(mutex);
    left.wait(lock, [&] { return inside.load(std::memory_order_relaxed) == 0; });
    body = nullptr;
    if (failure) std::rethrow_exception(std::exchange(failure, nullptr));
  }

  const int spin_limit;
  std::mutex mutex;
  std::condition_variable work;  // a job has begun, or the team closes
  std::condition_variable left;  // nobody is inside any more
  std::atomic<uint64_t> job_number{0};
  std::atomic<int> inside{0};  // helpers working on the job
  std::atomic<int64_t> next{0};
  // Guarded by the mutex; blocks and *body are constant while anyone is inside.
  absl::FunctionRef<void(int64_t)>* body = nullptr;
  int64_t blocks = 0;
  int sleepers = 0;
  bool closing = false;
  std::exception_ptr failure;
  std::vector<std::thread> helpers;
};

Team::Team(int size, std::vector<int> processors) {
  CHECK_GE(size, 1);
  state_ = std::make_unique<State>(size, std::move(processors));
}

Team::~Team() = default;

int Team::size() const { return static_cast<int>(state_->helpers.size()) + 1; }

void Team::ParallelFor(int64_t blocks, absl::FunctionRef<void(int64_t)> body) {
  PrepareThread();
  FlushDenormals flush;
  if (blocks <= 1 || state_->helpers.empty()) {
    for (int64_t block = 0; block < blocks; ++block) body(block);
  } else {
    state_->Run(blocks, body);
  }
}

std::byte* ThreadScratch(ScratchSlot slot, int64_t bytes) {
  struct Piece {
    std::byte* data = nullptr;
    int64_t bytes = 0;
    ~Piece() { Free(); }
    void Free() {
      if (data != nullptr) UnmapLargePages(data, bytes);
      data = nullptr;
      bytes = 0;
    }
  };
  thread_local Piece pieces[3];
  Piece& piece = pieces[static_cast<int>(slot)];
  if (bytes > piece.bytes) {
    piece.Free();
    piece.data = MapLargePages(bytes);
    if (piece.data == nullptr) throw std::bad_alloc();
    piece.bytes = bytes;
  }
  return piece.data;
}

}  // namespace sluice::cpu
