#include "kernels/cpu/tile_packing.h"

#include <algorithm>

#include "kernels/cpu/tile_instructions.h"
#include "kernels/cpu/tile_product.h"

namespace sluice::cpu::tiles {
namespace {

constexpr int kHalf = kStep / 2;

// 32 rows of 32 bf16, zero where the source has no element.
struct Square {
  __m512i rows[kStep];
};

TILE_INLINE __m512i LoadRow(const BFloat16* source, uint32_t mask) { return _mm512_maskz_loadu_epi16(mask, source); }
TILE_INLINE __m512i LoadRow(const float* source, uint32_t mask) {
  return Round(_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), source),
               _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> kHalf), source + kHalf));
}

uint32_t Mask(int64_t columns) { return columns >= kStep ? ~0u : (1u << columns) - 1; }

// The square at (row, column) of a matrix of `extent`.
template <class T>
TILE_INLINE void LoadSquare(Extent extent, Block<const T> source, int64_t row, int64_t column, Square* square) {
  const uint32_t mask = Mask(extent.columns - column);
  const int64_t rows = std::min(kStep, extent.rows - row);
  const T* from = source.data + row * source.stride + column;
  for (int r = 0; r < kStep; ++r, from += source.stride) {
    square->rows[r] = r < rows ? LoadRow(from, mask) : _mm512_setzero_si512();
  }
}

// rows[i] of 16 words becomes column i.
TILE_INLINE void TransposeWords(__m512i rows[kHalf]) {
  __m512i pairs[kHalf], quads[kHalf];
  for (int i = 0; i < kHalf; i += 2) {
    pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < kHalf; i += 4) {
    quads[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
    quads[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
    quads[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
    quads[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
  }
  // quads[4 a + b], lane l: column 4 l + b of rows 4 a ... 4 a + 3.
  for (int b = 0; b < 4; ++b) {
    const __m512i low = _mm512_shuffle_i32x4(quads[b], quads[4 + b], 0x44);
    const __m512i high = _mm512_shuffle_i32x4(quads[b], quads[4 + b], 0xee);
    const __m512i low2 = _mm512_shuffle_i32x4(quads[8 + b], quads[12 + b], 0x44);
    const __m512i high2 = _mm512_shuffle_i32x4(quads[8 + b], quads[12 + b], 0xee);
    rows[b] = _mm512_shuffle_i32x4(low, low2, 0x88);
    rows[4 + b] = _mm512_shuffle_i32x4(low, low2, 0xdd);
    rows[8 + b] = _mm512_shuffle_i32x4(high, high2, 0x88);
    rows[12 + b] = _mm512_shuffle_i32x4(high, high2, 0xdd);
  }
}

TILE_INLINE void Store(BFloat16* to, int row, __m512i value) { _mm512_store_si512(to + row * kStep, value); }

// The square's rows as those of two left-hand tiles.
TILE_INLINE void StoreLeft(const Square& square, BFloat16* to) {
  for (int r = 0; r < kStep; ++r) Store(to, r, square.rows[r]);
}

// Word p of the interleaved low (high) halves of two rows is a pair of column 8 (p / 4) + p % 4 (+ 4).
TILE_INLINE void StoreLeftTransposed(const Square& square, BFloat16* to) {
  __m512i low[kHalf], high[kHalf];
  for (int i = 0; i < kHalf; ++i) {
    low[i] = _mm512_unpacklo_epi16(square.rows[2 * i], square.rows[2 * i + 1]);
    high[i] = _mm512_unpackhi_epi16(square.rows[2 * i], square.rows[2 * i + 1]);
  }
  TransposeWords(low);
  TransposeWords(high);
  for (int p = 0; p < kHalf; ++p) {
    const int row = p / 4 * 8 + p % 4;
    Store(to, row, low[p]);
    Store(to, row + 4, high[p]);
  }
}

// The square's rows are the depth: pairs of rows are interleaved, the first 16 columns in one tile, the others in the
// next.
TILE_INLINE void StoreRight(const Square& square, BFloat16* to) {
  for (int i = 0; i < kHalf; ++i) {
    StorePairs(square.rows[2 * i], square.rows[2 * i + 1], to + i * kStep, to + (kHalf + i) * kStep);
  }
}

// The square's rows are columns: words, which are pairs of the depth, change places with rows.
TILE_INLINE void StoreRightTransposed(const Square& square, BFloat16* to) {
  for (int half = 0; half < 2; ++half, to += kStepElements / 2) {
    __m512i words[kHalf];
    for (int i = 0; i < kHalf; ++i) words[i] = square.rows[half * kHalf + i];
    TransposeWords(words);
    for (int i = 0; i < kHalf; ++i) Store(to, i, words[i]);
  }
}

template <class T>
TILE_FUNCTION void PackLeftRows(Extent extent, Block<const T> source, BFloat16* packed) {
  Square square;
  for (int64_t row = 0; row < extent.rows; row += kStep) {
    for (int64_t d = 0; d < extent.columns; d += kStep, packed += kStepElements) {
      LoadSquare(extent, source, row, d, &square);
      StoreLeft(square, packed);
    }
  }
}

// The depth runs down the rows: those of a square are read as they lie, and go to one group for each 32 columns.
template <void (*kStore)(const Square&, BFloat16*)>
TILE_FUNCTION void PackByRows(Extent extent, Block<const BFloat16> source, BFloat16* packed) {
  Square square;
  const int64_t group_elements = Steps(extent.rows) * kStepElements;
  for (int64_t d = 0; d < extent.rows; d += kStep) {
    for (int64_t column = 0; column < extent.columns; column += kStep) {
      LoadSquare(extent, source, d, column, &square);
      kStore(square, packed + column / kStep * group_elements + d * kStep);
    }
  }
}

}  // namespace

void PackLeft(Extent extent, Block<const BFloat16> source, BFloat16* packed) { PackLeftRows(extent, source, packed); }
void PackLeft(Extent extent, Block<const float> source, BFloat16* packed) { PackLeftRows(extent, source, packed); }

void PackLeftTransposed(Extent extent, Block<const BFloat16> source, BFloat16* packed) {
  PackByRows<StoreLeftTransposed>(extent, source, packed);
}

void PackRight(Extent extent, Block<const BFloat16> source, BFloat16* packed) {
  PackByRows<StoreRight>(extent, source, packed);
}

TILE_FUNCTION void PackRightTransposed(Extent extent, Block<const BFloat16> source, BFloat16* packed) {
  Square square;
  for (int64_t column = 0; column < extent.rows; column += kStep) {
    for (int64_t d = 0; d < extent.columns; d += kStep, packed += kStepElements) {
      LoadSquare(extent, source, column, d, &square);
      StoreRightTransposed(square, packed);
    }
  }
}

TILE_FUNCTION void PackWeightGroup(const PackedWeight& w, int64_t begin) {
  const Extent extent{w.outputs, w.inputs};
  const Block<const float> source{w.weight, w.inputs};
  const int64_t output_steps = Steps(w.outputs), input_steps = Steps(w.inputs), group = begin / kStep;
  BFloat16* forward = w.forward + group * input_steps * kStepElements;
  BFloat16* gradient = w.input_gradient == nullptr ? nullptr : w.input_gradient + group * kStepElements;
  Square square;
  for (int64_t input = 0; input < w.inputs; input += kStep) {
    LoadSquare(extent, source, begin, input, &square);
    StoreRightTransposed(square, forward);
    forward += kStepElements;
    if (gradient == nullptr) continue;
    StoreRight(square, gradient);
    gradient += output_steps * kStepElements;
  }
}

}  // namespace sluice::cpu::tiles
