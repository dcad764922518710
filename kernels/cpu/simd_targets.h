// Which instruction sets the Highway kernels are compiled for. Include before any header of Highway, in every file of a
// program alike. Each set costs compile time, so of x86 only those that machines for training have: AVX2, AVX-512, and
// the emulation as the base that runs anywhere.
#pragma once

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
