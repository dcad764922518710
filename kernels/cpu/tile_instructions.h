// For the files that use AMX and AVX-512 intrinsics directly: functions marked TILE_FUNCTION are compiled for them,
// whatever the rest of the file and the program are compiled for. REQUIRES of all of them: tiles::Available().
#pragma once

#include <immintrin.h>

#define TILE_FUNCTION __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")))
#define TILE_INLINE TILE_FUNCTION __attribute__((always_inline)) inline
