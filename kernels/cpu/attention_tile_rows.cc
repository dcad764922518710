#include "kernels/cpu/attention_tile_rows.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/tile_instructions.h"
#include "kernels/cpu/tile_product.h"

namespace sluice::cpu::tiles {
namespace {

constexpr int64_t kHalf = kStep / 2;

// e^x within 2 units in the last place; 0 below the normal numbers. The polynomial of simd_math-inl.h.
TILE_INLINE __m512 Exp(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145751953125f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.428606765330187045e-06f), r);
  __m512 p = _mm512_set1_ps(0.000198527617612853646278f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.00139304355252534151077f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.00833336077630519866943f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.0416664853692054748535f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.166666671633720397949f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return _mm512_scalef_ps(p, n);
}

// Of the 16 elements from `begin`, those within [first, end).
TILE_INLINE __mmask16 Within(int64_t begin, int64_t first, int64_t end) {
  const auto below = [](int64_t n) { return n <= 0 ? 0u : n >= kHalf ? 0xffffu : (1u << n) - 1; };
  return static_cast<__mmask16>(below(end - begin) & ~below(first - begin));
}

// What a row of keys has for 16 queries.
struct Lanes {
  __m512 p, ds;
};

TILE_INLINE Lanes GradientLanes(const ScoreBlock& b, int64_t key, int64_t query) {
  const int64_t at = key * ScoreBlock::kQueries + query;
  const __m512i number = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(query)),
                                          _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  const int position = static_cast<int>(b.first + key);
  __mmask16 attends = _mm512_cmplt_epi32_mask(number, _mm512_set1_epi32(static_cast<int>(b.queries)));
  attends = _mm512_mask_cmpge_epi32_mask(attends, number, _mm512_set1_epi32(position - static_cast<int>(b.query)));
  if (b.first_key != nullptr) {
    const __m512i first = _mm512_maskz_loadu_epi32(attends, b.first_key + query);
    attends = _mm512_mask_cmple_epi32_mask(attends, first, _mm512_set1_epi32(position));
  }
  const __m512 scale = _mm512_set1_ps(b.scale);
  const __m512 exponent = _mm512_fmsub_ps(_mm512_load_ps(b.scores + at), scale, _mm512_load_ps(b.lse + query));
  const __m512 p = _mm512_maskz_mov_ps(attends, Exp(exponent));
  const __m512 distance = _mm512_sub_ps(_mm512_load_ps(b.dp + at), _mm512_load_ps(b.mean + query));
  return {p, _mm512_maskz_mul_ps(attends, _mm512_mul_ps(p, scale), distance)};
}

TILE_INLINE void StoreRow(BFloat16* to, __m512i value) { _mm512_store_si512(to, value); }

// Two rows of keys for 32 queries.
TILE_INLINE void GradientPair(const ScoreBlock& b, int64_t key, int64_t step, int64_t steps) {
  const int64_t query = step * kStep;
  __m512i ds[2];
  for (int i = 0; i < 2; ++i) {
    const Lanes low = GradientLanes(b, key + i, query), high = GradientLanes(b, key + i, query + kHalf);
    const int64_t at = (key / kStep * steps + step) * kStepElements + (key % kStep + i) * kStep;
    ds[i] = Round(low.ds, high.ds);
    StoreRow(b.p + at, Round(low.p, high.p));
    StoreRow(b.ds + at, ds[i]);
  }
  BFloat16* right = b.ds_right + step * b.ds_right_stride + key / kStep * kStepElements + key % kStep / 2 * kStep;
  StorePairs(ds[0], ds[1], right, right + kStepElements / 2);
}

}  // namespace

void Fetch(Extent extent, Block<const BFloat16> rows) {
  for (int64_t row = 0; row < extent.rows; ++row, rows.data += rows.stride) {
    for (int64_t column = 0; column < extent.columns; column += kStep) __builtin_prefetch(rows.data + column, 0, 2);
  }
}

TILE_FUNCTION RowSum Exponentiate(const QueryRow& row, float scale, BFloat16* to) {
  const __m512 factor = _mm512_set1_ps(scale);
  const __m512 lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 largest = lowest;
  const int64_t begin = row.first / kHalf * kHalf;
  for (int64_t key = begin; key < row.end; key += kHalf) {
    const __m512 score = _mm512_mul_ps(_mm512_load_ps(row.scores + key), factor);
    largest = _mm512_mask_max_ps(largest, Within(key, row.first, row.end), largest, score);
  }
  const float max = _mm512_reduce_max_ps(largest);
  const __m512 center = _mm512_set1_ps(max);
  __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (int64_t step = 0; step < row.steps; ++step, to += kStepElements) {
    const int64_t key = step * kStep;
    if (key >= row.end || key + kStep <= row.first) {
      StoreRow(to, _mm512_setzero_si512());
      continue;
    }
    __m512 e[2];
    for (int i = 0; i < 2; ++i) {
      const __m512 x = _mm512_fmsub_ps(_mm512_load_ps(row.scores + key + i * kHalf), factor, center);
      e[i] = _mm512_maskz_mov_ps(Within(key + i * kHalf, row.first, row.end), Exp(x));
      sums[i] = _mm512_add_ps(sums[i], e[i]);
    }
    StoreRow(to, Round(e[0], e[1]));
  }
  return {max, _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))};
}

TILE_FUNCTION void ScaleRow(int64_t n, float factor, const float* from, BFloat16* to) {
  const __m512 by = _mm512_set1_ps(factor);
  for (int64_t i = 0; i < n; i += kStep) {
    const __m512i both =
        Round(_mm512_mul_ps(_mm512_load_ps(from + i), by), _mm512_mul_ps(_mm512_load_ps(from + i + kHalf), by));
    _mm512_mask_storeu_epi16(to + i, n - i >= kStep ? ~0u : (1u << (n - i)) - 1, both);
  }
}

TILE_FUNCTION void Gradients(const ScoreBlock& block) {
  const int64_t steps = Steps(block.queries);
  for (int64_t key = 0; key < block.keys; key += 2) {
    for (int64_t step = 0; step < steps; ++step) GradientPair(block, key, step, steps);
  }
}

TILE_FUNCTION void TransposeRows(Extent extent, const float* from, int64_t from_stride, Block<BFloat16> to) {
  const __m512i rows = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                          _mm512_set1_epi32(static_cast<int>(from_stride)));
  for (int64_t row = 0; row < extent.rows; ++row) {
    for (int64_t column = 0; column < extent.columns; column += kHalf) {
      const __mmask16 mask = Within(column, 0, extent.columns);
      const __m512 values =
          _mm512_mask_i32gather_ps(_mm512_setzero_ps(), mask, rows, from + column * from_stride + row, sizeof(float));
      _mm256_mask_storeu_epi16(to.data + row * to.stride + column, mask, (__m256i)_mm512_cvtneps_pbh(values));
    }
  }
}

TILE_FUNCTION void StoreSums(Extent extent, const float* sums, Block<BFloat16> to) {
  const int64_t panels = Steps(extent.columns);
  for (int64_t row = 0; row < extent.rows; ++row) {
    for (int64_t panel = 0; panel < panels; ++panel) {
      ScaleRow(std::min(kStep, extent.columns - panel * kStep), 1.0f,
               sums + (row / kStep * panels + panel) * kStepElements + row % kStep * kStep,
               to.data + row * to.stride + panel * kStep);
    }
  }
}

}  // namespace sluice::cpu::tiles
