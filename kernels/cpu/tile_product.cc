#include "kernels/cpu/tile_product.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/cpu/onednn.h"
#include "kernels/cpu/tile_instructions.h"

namespace sluice::cpu::tiles {
namespace {

constexpr int64_t kHalf = kStep / 2;
constexpr int64_t kTileBytes = 64;
// Rows of results that are finished during one step: of at least 16 steps, all.
constexpr int kRowsPerStep = 2;

// The kernel's own request for the tiles' state (Linux, arch_prctl).
constexpr int kRequestPermission = 0x1023;
constexpr int kTileData = 18;

struct alignas(64) Configuration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// A block whose sums are done and whose results are not written yet.
struct Pending {
  const float* sums = nullptr;
  int64_t row = 0;  // of the target
  int64_t rows = 0;
  int64_t column = 0;
  uint32_t columns = 0;  // mask
};

TILE_INLINE __m512 LoadFloats(const std::byte* data, DType type, int64_t at, __mmask16 mask) {
  if (type == DType::kF32) return _mm512_maskz_loadu_ps(mask, reinterpret_cast<const float*>(data) + at);
  const __m256i half = _mm256_maskz_loadu_epi16(mask, reinterpret_cast<const uint16_t*>(data) + at);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// One row of results.
TILE_INLINE void FinishRow(const Target& target, const Pending& done, int64_t row) {
  const __mmask16 low = static_cast<__mmask16>(done.columns), high = static_cast<__mmask16>(done.columns >> kHalf);
  __m512 left = _mm512_load_ps(done.sums + row * kStep), right = _mm512_load_ps(done.sums + row * kStep + kHalf);
  if (target.bias != nullptr) {
    left = _mm512_add_ps(left, _mm512_maskz_loadu_ps(low, target.bias + done.column));
    right = _mm512_add_ps(right, _mm512_maskz_loadu_ps(high, target.bias + done.column + kHalf));
  }
  if (target.add != nullptr) {
    const int64_t at = (done.row + row) * target.add_stride + done.column;
    left = _mm512_add_ps(left, LoadFloats(target.add, target.add_type, at, low));
    right = _mm512_add_ps(right, LoadFloats(target.add, target.add_type, at + kHalf, high));
  }
  const int64_t at = (done.row + row) * target.y_stride + done.column;
  if (target.y_type == DType::kF32) {
    float* y = reinterpret_cast<float*>(target.y) + at;
    _mm512_mask_storeu_ps(y, low, left);
    _mm512_mask_storeu_ps(y + kHalf, high, right);
  } else {
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(right, left);
    _mm512_mask_storeu_epi16(reinterpret_cast<uint16_t*>(target.y) + at, done.columns, both);
  }
}

// Brings a row that will be written or added to near: as far as the second-level cache, since the first one's few open
// requests are needed for operands.
TILE_INLINE void FetchRow(const Target& target, int64_t row, int64_t column) {
  const std::byte* y = target.y + (row * target.y_stride + column) * SizeOf(target.y_type);
  _mm_prefetch(y, _MM_HINT_T1);
  if (target.y_type == DType::kF32) _mm_prefetch(y + kTileBytes, _MM_HINT_T1);
  if (target.add != nullptr && target.add != target.y) {
    _mm_prefetch(target.add + (row * target.add_stride + column) * SizeOf(target.add_type), _MM_HINT_T1);
  }
}

// What happens beside the multiplication of a block.
struct Beside {
  Pending done;        // the block before
  bool fetch = false;  // whether this block's target is written next
  int64_t row = 0;     // of this block
  int64_t column = 0;
  const std::byte* ahead = nullptr;  // the next packed columns ...
  int64_t lines_per_step = 0;        // ... of which each step fetches a share
};

// Where a block's four tiles of sums go.
struct Store {
  float* data;
  int64_t row_bytes;
};

TILE_FUNCTION void MultiplyBlock(const Product& p, const BFloat16* a, const Left& left, const BFloat16* b,
                                 const float* sums, Store store, Beside beside) {
  if (p.first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums, 2 * kTileBytes);
    _tile_loadd(1, sums + kHalf, 2 * kTileBytes);
    _tile_loadd(2, sums + kHalf * kStep, 2 * kTileBytes);
    _tile_loadd(3, sums + kHalf * kStep + kHalf, 2 * kTileBytes);
  }
  const int64_t row_bytes = left.row_stride * 2;
  int64_t finished = beside.done.sums == nullptr ? kStep : 0;
  int64_t fetched = beside.fetch ? 0 : kStep;
  for (int64_t step = 0; step < p.steps; ++step, a += left.step_stride, b += kStepElements) {
    _tile_loadd(4, a, row_bytes);
    _tile_loadd(6, b, kTileBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + kStepElements / 2, kTileBytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + left.half_stride, row_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    for (int64_t line = 0; line < beside.lines_per_step; ++line, beside.ahead += kTileBytes) {
      _mm_prefetch(beside.ahead, _MM_HINT_T1);
    }
    for (int row = 0; row < kRowsPerStep && finished < beside.done.rows; ++row)
      FinishRow(p.target, beside.done, finished++);
    for (int row = 0; row < kRowsPerStep && fetched < kStep; ++row)
      FetchRow(p.target, beside.row + fetched++, beside.column);
  }
  while (finished < beside.done.rows) FinishRow(p.target, beside.done, finished++);
  _tile_stored(0, store.data, store.row_bytes);
  _tile_stored(1, store.data + kHalf, store.row_bytes);
  _tile_stored(2, store.data + kHalf * store.row_bytes / 4, store.row_bytes);
  _tile_stored(3, store.data + kHalf * store.row_bytes / 4 + kHalf, store.row_bytes);
}

bool RequestTiles() { return HasTiles() && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0; }

TILE_FUNCTION void Configure() {
  Configuration configuration;
  for (int tile = 0; tile < 8; ++tile) {
    configuration.row_bytes[tile] = kTileBytes;
    configuration.rows[tile] = kHalf;
  }
  asm volatile("" : : "r"(&configuration) : "memory");  // g++ 12 takes only 8 bytes of it for read
  _tile_loadconfig(&configuration);
}

TILE_FUNCTION void Release() { _tile_release(); }

}  // namespace

bool Available() {
  static const bool available = RequestTiles();
  return available;
}

Session::Session() { Configure(); }
Session::~Session() { Release(); }

TILE_FUNCTION void Multiply(const Product& p) {
  const int64_t groups = Steps(p.rows), panels = Steps(p.columns);
  const Left tail = Left::Packed(p.tail, p.steps * kStep);
  const Target& target = p.target;
  // Sums that are results as they are go there straight from the tiles.
  const bool plain = p.last && target.y_type == DType::kF32 && target.bias == nullptr && target.add == nullptr;
  const bool one_piece = p.first && p.last, by_columns = p.walk == Walk::kDownColumns;
  Beside beside{.fetch = p.last};
  for (int64_t number = 0; number < groups * panels; ++number) {
    const int64_t group = by_columns ? number % groups : number / panels;
    const int64_t panel = by_columns ? number / groups : number % panels;
    const BFloat16* right = p.right + panel * p.right_stride;
    beside.row = group * kStep;
    beside.column = panel * kStep;
    if (by_columns) {  // each block fetches its share of the next columns
      beside.lines_per_step = (kStep + groups - 1) / groups;
      beside.ahead = reinterpret_cast<const std::byte*>(right + p.right_stride) +
                     group * p.steps * beside.lines_per_step * kTileBytes;
    }
    const int64_t rows = std::min(kStep, p.rows - beside.row), columns = std::min(kStep, p.columns - beside.column);
    // With one piece two places take turns: the results of one are written while the other is filled.
    float* sums = p.sums + (one_piece ? number % 2 : group * panels + panel) * kStepElements;
    const bool straight = plain && rows == kStep && columns == kStep;
    float* const y = reinterpret_cast<float*>(target.y) + beside.row * target.y_stride + beside.column;
    const Store store = straight ? Store{y, target.y_stride * 4} : Store{sums, 2 * kTileBytes};
    const bool is_tail = p.tail != nullptr && group + 1 == groups;
    MultiplyBlock(p, is_tail ? p.tail : p.left.data + group * p.left.group_stride, is_tail ? tail : p.left, right, sums,
                  store, beside);
    beside.done = {};
    if (p.last && !straight) {
      beside.done = {sums, beside.row, rows, beside.column, columns == kStep ? ~0u : (1u << columns) - 1};
    }
  }
  for (int64_t row = 0; row < beside.done.rows; ++row) FinishRow(target, beside.done, row);
}

}  // namespace sluice::cpu::tiles
