// Stands in for the control plane in virtual time: processes of a test, which are tasks of a World, exchange blobs.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/world.h"
#include "runtime/transport/process_specs.h"

namespace sluice {

class SimBlobBoard {
 public:
  SimBlobBoard(World* world, int processes) : world_(world), processes_(processes) {}

  // The function of one process. The board outlives it.
  ExchangeBlobs Of(int process) {
    return [this, process](const std::string& name, std::string mine) -> absl::StatusOr<std::vector<std::string>> {
      Ref<Signal> complete;
      bool last = false;
      {
        std::lock_guard lock(mutex_);
        Round& round = rounds_[name];
        round.blobs.resize(processes_);
        round.blobs[process] = std::move(mine);
        if (!round.complete) round.complete = MakeRef<Signal>();
        complete = round.complete;
        last = ++round.given == processes_;
      }
      if (last) complete->Set(absl::OkStatus(), world_->Now());
      if (const absl::Status status = world_->Wait(complete); !status.ok()) return status;
      std::lock_guard lock(mutex_);
      return rounds_[name].blobs;
    };
  }

 private:
  struct Round {
    std::vector<std::string> blobs;
    int given = 0;
    Ref<Signal> complete;
  };
  World* const world_;
  const int processes_;
  std::mutex mutex_;
  std::map<std::string, Round> rounds_;
};

}  // namespace sluice
