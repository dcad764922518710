// Channels and groups in words.
#pragma once

#include <string>

#include "kernels/transport.h"

namespace sluice {

// "channel 3, queue 1, rank 0 to rank 1, 4096 bytes: activation 0->1 [8, 128] f32"
std::string ToString(const ChannelSpec& spec);
std::string ToString(const GroupSpec& spec);

}  // namespace sluice
