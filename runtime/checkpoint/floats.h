// Half-precision values as they lie in files, turned into f32: exact, also for subnormals, infinities and NaNs (whose
// payload stays). Little-endian, of any alignment.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sluice {

void F16ToF32(const std::byte* from, int64_t count, float* to);
void BF16ToF32(const std::byte* from, int64_t count, float* to);

}  // namespace sluice
