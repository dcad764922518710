// Gloo alone, used as its own documentation says: what our channels are measured against.
#pragma once

#include <cstddef>
#include <memory>

#include "runtime/transport/gloo_hub.h"

namespace sluice {

// One end of a connection between processes 0 and 1, with memory for four messages each way.
class RawGloo {
 public:
  RawGloo(int process, const ExchangeBlobs& exchange, size_t bytes_max);
  ~RawGloo();

  // The message's first `bytes`; `place` 0 ... 3 says which memory.
  void Send(int place, size_t bytes);
  void WaitSend(int place);
  void Recv(int place, size_t bytes);
  void WaitRecv(int place);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
