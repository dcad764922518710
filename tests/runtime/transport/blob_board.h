// Stands in for the control plane: processes of a test exchange blobs through memory.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/transport/process_specs.h"

namespace sluice {

class BlobBoard {
 public:
  explicit BlobBoard(int processes) : processes_(processes) {}

  // The function of one process. The board outlives it.
  ExchangeBlobs Of(int process) {
    return [this, process](const std::string& name, std::string mine) -> absl::StatusOr<std::vector<std::string>> {
      std::unique_lock lock(mutex_);
      Round& round = rounds_[name];
      round.blobs.resize(processes_);
      round.blobs[process] = std::move(mine);
      ++round.given;
      changed_.notify_all();
      changed_.wait(lock, [&] { return round.given == processes_; });
      return round.blobs;
    };
  }

 private:
  struct Round {
    std::vector<std::string> blobs;
    int given = 0;
  };
  const int processes_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, Round> rounds_;
};

}  // namespace sluice
