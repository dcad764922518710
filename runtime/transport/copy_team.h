// Makes the copies of large collectives, each by several tasks at once: one processor moves half of what the memory
// could. Its tasks start with the first job. Threads: one thread starts jobs; they run one after the other.
#pragma once

#include <functional>
#include <list>
#include <mutex>
#include <vector>

#include "base/signal_pool.h"
#include "base/world.h"
#include "runtime/transport/collective.h"

namespace sluice::internal {

class CopyTeam {
 public:
  CopyTeam(World* world, int tasks) : world_(world), tasks_(tasks) {}
  // REQUIRES: all jobs have ended.
  ~CopyTeam();

  // Makes the copies and then calls `ended` from a task. The copies stay as they are until then.
  void Start(const std::vector<Copy>* copies, std::function<void(Nanoseconds began, Nanoseconds ended)> ended);

 private:
  struct Job {
    const std::vector<Copy>* copies;
    std::function<void(Nanoseconds began, Nanoseconds ended)> ended;
    int taken = 0;  // by so many tasks
    int left;       // shares that are not done
    Nanoseconds began = -1;
  };

  void Run();
  // The next share of the first job that has one, or null.
  Job* Take(int* share);
  void CopyShare(const Job& job, int share) const;
  void Finish(Job* job);

  World* const world_;
  const int tasks_;
  const Ref<SignalPool> signals_ = MakeRef<SignalPool>();

  std::mutex mutex_;
  bool closing_ = false;
  std::list<Job> jobs_;
  Ref<Signal> changed_;  // what idle tasks sleep on
  std::vector<EventRef> running_;
};

}  // namespace sluice::internal
