// Memory in pages of 2 MiB, where the system has them: a weight gradient walks through so many pages of 4 KiB at once that
// finding their addresses costs more than their bytes. Zeroed by the system when first touched, so that the thread that
// first writes a page decides where it lies.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice::cpu {

inline constexpr int64_t kLargePage = int64_t{2} << 20;

// Null when the system refuses. Given back by UnmapLargePages with the same number of bytes.
std::byte* MapLargePages(int64_t bytes);
void UnmapLargePages(std::byte* data, int64_t bytes);

}  // namespace sluice::cpu
