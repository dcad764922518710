// Why a program can't run to its end, as data: the shortest circle of actions that wait for one another. What the
// verifier puts into words when it refuses a program, and what a picture of it needs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/program.h"

namespace sluice {

// An action by its place in a rank's list.
struct ActionPlace {
  PipelineRank rank;
  int32_t position = 0;
  friend bool operator==(const ActionPlace&, const ActionPlace&) = default;
};

enum class WaitReason : uint8_t {
  kQueue,  // stands behind `via` in its queue
  kNeeds,  // needs `via` to have ended
  kIssue,  // the rank's issuing thread stands until `via` has ended
};

// `from` can't start before `to` has: it waits for `via` to end, and `to` is `via` or the other end of it.
struct Wait {
  ActionPlace from, to, via;
  WaitReason reason = WaitReason::kQueue;
  std::string text;  // "rank 0's 0RECV_B0 stands behind 0SEND_F1 in queue up, whose other end is rank 1's 1RECV_F1"
};

struct Deadlock {
  bool merged = false;                   // only with all communication of a rank in one queue, in issue order
  std::vector<Wait> circle;              // each one's `to` is the next one's `from`
  std::vector<std::vector<bool>> ended;  // per rank, per action: whether it still comes to its end
};

// "deadlock, ranks 0, 1 wait in a circle: ...; ..."
std::string ToString(const Deadlock& deadlock);

// The deadlock for which Verify refuses the program, with all communication of a rank in one queue too; nothing if it
// runs to its end or is refused for something else.
std::optional<Deadlock> FindDeadlock(const Program& program);

}  // namespace sluice
