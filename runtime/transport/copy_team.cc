#include "runtime/transport/copy_team.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace sluice::internal {

CopyTeam::~CopyTeam() {
  {
    std::lock_guard lock(mutex_);
    CHECK(jobs_.empty()) << "copies outlive their team";
    closing_ = true;
    if (changed_) changed_->Set(absl::OkStatus(), world_->Now());
  }
  for (const EventRef& task : running_) CHECK_OK(world_->Wait(task));
}

void CopyTeam::Start(const std::vector<Copy>* copies, std::function<void(Nanoseconds, Nanoseconds)> ended) {
  bool first = false;
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back({.copies = copies, .ended = std::move(ended), .left = tasks_});
    first = !changed_;
    if (!first) changed_->Set(absl::OkStatus(), world_->Now());
    changed_ = signals_->Take();
  }
  // Without the lock: starting a task may let others run.
  for (int i = 0; first && i < tasks_; ++i) running_.push_back(world_->Spawn({.name = "copies"}, [this] { Run(); }));
}

void CopyTeam::Run() {
  for (;;) {
    int share = 0;
    Job* job = nullptr;
    EventRef changed;
    {
      std::lock_guard lock(mutex_);
      if (closing_) return;
      job = Take(&share);
      changed = changed_;
    }
    if (job == nullptr) {
      world_->Wait(changed).IgnoreError();
      continue;
    }
    CopyShare(*job, share);
    Finish(job);
  }
}

CopyTeam::Job* CopyTeam::Take(int* share) {
  for (Job& job : jobs_) {
    if (job.taken == tasks_) continue;
    if (job.began < 0) job.began = world_->Now();
    *share = job.taken++;
    return &job;
  }
  return nullptr;
}

// A share is as many bytes of the whole as any other.
void CopyTeam::CopyShare(const Job& job, int share) const {
  int64_t total = 0;
  for (const Copy& copy : *job.copies) total += copy.bytes;
  const auto border = [&](int64_t k) { return k == tasks_ ? total : total * k / tasks_ / 64 * 64; };
  int64_t begin = border(share);
  int64_t left = border(share + 1) - begin;
  for (const Copy& copy : *job.copies) {
    const int64_t bytes = std::min(left, copy.bytes - begin);
    if (bytes > 0) {
      std::memcpy(copy.to + begin, copy.from + begin, bytes);
      left -= bytes;
    }
    begin = std::max<int64_t>(0, begin - copy.bytes);
  }
}

void CopyTeam::Finish(Job* job) {
  std::function<void(Nanoseconds, Nanoseconds)> ended;
  Nanoseconds began = 0;
  {
    std::lock_guard lock(mutex_);
    if (--job->left > 0) return;
    ended = std::move(job->ended);
    began = job->began;
    jobs_.remove_if([&](const Job& other) { return &other == job; });
  }
  ended(began, world_->Now());
}

}  // namespace sluice::internal
