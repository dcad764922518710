// A transport whose slots stay where they are, as on GPUs: it copies messages through staging slots of the transport it
// wraps. With it the executor issues compute at once and lets the device wait.
#pragma once

#include <memory>

#include "base/world.h"
#include "kernels/device.h"
#include "kernels/transport.h"

namespace sluice {

// World and device outlive it.
std::unique_ptr<Transport> NewFixedSlotsTransport(std::unique_ptr<Transport> transport, World* world, Device* device);

}  // namespace sluice
