// Time as the World tells it: nanoseconds since the world began, real or virtual.
#pragma once

#include <cstdint>
#include <limits>

namespace sluice {

using Nanoseconds = int64_t;

inline constexpr Nanoseconds kMicrosecond = 1'000;
inline constexpr Nanoseconds kMillisecond = 1'000'000;
inline constexpr Nanoseconds kSecond = 1'000'000'000;
// A deadline that never comes.
inline constexpr Nanoseconds kForever = std::numeric_limits<Nanoseconds>::max();

}  // namespace sluice
