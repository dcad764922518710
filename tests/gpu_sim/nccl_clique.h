// The members of one communicator of the simulated NCCL, and the ends that wait there for their other ends. Internal.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/gpu_sim/nccl_library.h"

namespace gpu_sim {

struct SplitRound {
  std::vector<ncclComm*> callers;
  Nanoseconds ready_at = sluice::kForever;
  std::map<const ncclComm*, ncclComm*> children;
};

struct Clique {
  Clique(int64_t number, int64_t ranks) : number(number), members(ranks) {}

  struct Unmatched {
    NcclOperation operation;
    ExchangeRef exchange;
  };
  struct Gathering {
    std::vector<NcclOperation> operations;
    ExchangeRef exchange;
  };
  const int64_t number;
  std::vector<ncclComm*> members;  // by rank; null: has not joined
  int joined = 0, finalized = 0;
  Nanoseconds ready_at = sluice::kForever;
  std::map<int64_t, SplitRound> splits;
  std::map<std::pair<int, int>, std::deque<Unmatched>> transfers;  // by sender and receiver
  std::map<int64_t, Gathering> gatherings;                         // by number
};

// "rank 1 of communicator 3".
std::string NameOf(const ncclComm& comm);

}  // namespace gpu_sim
