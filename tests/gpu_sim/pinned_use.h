// Which pinned memory is in use by commands that the host has not seen end: host code may not write what they read, nor
// touch what they write. Its pages are closed accordingly. A page that the host has touched stays open until the next
// Begin() or End(), since it may hold bytes that nobody uses. Threads: one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "tests/gpu_sim/order_check.h"
#include "tests/gpu_sim/pinned_memory.h"

namespace gpu_sim {

class PinnedUse {
 public:
  struct Use {
    OrderCheck::Bytes bytes;
    bool writes = false;
    int agent = 0;
    uint32_t index = 0;  // the agent's access
    uint32_t call = 0;
  };
  void Begin(const Use& use);
  // Ends the uses of which `ended` is true.
  void End(const std::function<bool(const Use& use)>& ended);
  // The use that an access of the host to this byte disturbs. The byte's page is open from now on.
  std::optional<Use> Touch(uintptr_t address, bool writes);

 private:
  // Each page by what is in use on it.
  HostAccess AccessOf(uintptr_t page) const;
  void Protect(OrderCheck::Bytes bytes) const;
  void CloseAgain();
  std::vector<Use> uses_;
  std::vector<uintptr_t> open_;  // addresses on pages that are open for the time being
};

}  // namespace gpu_sim
