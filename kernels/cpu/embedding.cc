#include "kernels/cpu/embedding.h"

#include "kernels/cpu/simd_targets.h"
#include "kernels/cpu/work_split.h"
#include "kernels/operation_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/embedding.cc"
#include "hwy/foreach_target.h"
// In this order.
#include "kernels/cpu/simd-inl.h"

#ifndef SLUICE_KERNELS_CPU_EMBEDDING_ONCE
#define SLUICE_KERNELS_CPU_EMBEDDING_ONCE
namespace sluice::cpu {

// Columns of the table's gradient that belong to one thread: four cache lines.
constexpr int64_t kGradientColumns = 64;

// Row `index` of a table; null: it has other rows than that.
inline float* TableRow(const char* name, const TensorView& table, const RowRange& rows, int32_t index) {
  const int64_t size = rows.vocabulary > 0 ? rows.vocabulary : table.rows(), row = index - rows.first;
  CHECK(index >= 0 && index < size) << name << " " << index << " with a table of " << size << " rows";
  return row >= 0 && row < table.rows() ? table.as<float>() + row * table.columns() : nullptr;
}

}  // namespace sluice::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {
namespace {

template <class T>
void LookUpRow(const EmbeddingForwardArgs& args, int64_t row) {
  const int64_t columns = args.table.columns();
  T* y = args.y.as<T>() + row * columns;
  const float* token = TableRow("token", args.table, args.rows, args.tokens.as<int32_t>()[row]);
  if (token == nullptr) {
    ForEachVector(columns, [&](int64_t i, auto part) SIMD_LAMBDA { Store(Set(0), y + i, part); });
    return;
  }
  if (!args.position_table) {
    ForEachVector(columns, [&](int64_t i, auto part) SIMD_LAMBDA { Store(Load(token + i, part), y + i, part); });
    return;
  }
  const float* position = TableRow("position", args.position_table, {}, args.positions.as<int32_t>()[row]);
  ForEachVector(columns, [&](int64_t i, auto part) SIMD_LAMBDA {
    Store(hn::Add(Load(token + i, part), Load(position + i, part)), y + i, part);
  });
}

// Zeroes elements of a table that no cache holds: lines are written without being read before.
void ZeroElements(float* table, int64_t begin, int64_t end) {
  ForEachVector(end - begin, [&](int64_t i, auto part) SIMD_LAMBDA { StoreAround(Set(0), table + begin + i, part); });
  hwy::FlushStream();
}

// Columns [first, last) of the table's gradient.
template <class T>
void AddRows(const EmbeddingGradientArgs& args, int64_t first, int64_t last) {
  const int64_t columns = args.dtable.columns();
  for (int64_t row = 0; row < args.indices.elements(); ++row) {
    float* const table_row = TableRow("index", args.dtable, args.rows, args.indices.as<int32_t>()[row]);
    if (table_row == nullptr) continue;
    float* target = table_row + first;
    const T* dy = args.dy.as<T>() + row * columns + first;
    ForEachVector(last - first, [&](int64_t i, auto part) SIMD_LAMBDA {
      Store(hn::Add(Load(target + i, part), Load(dy + i, part)), target + i, part);
    });
  }
}

void EmbeddingForwardRows(const EmbeddingForwardArgs& args, int64_t begin, int64_t end) {
  const auto row_function = args.y.dtype == DType::kBF16 ? LookUpRow<BFloat16> : LookUpRow<float>;
  for (int64_t row = begin; row < end; ++row) row_function(args, row);
}

void EmbeddingGradientColumns(const EmbeddingGradientArgs& args, int64_t first, int64_t last) {
  (args.dy.dtype == DType::kBF16 ? AddRows<BFloat16> : AddRows<float>)(args, first, last);
}

}  // namespace
}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(ZeroElements);
HWY_EXPORT(EmbeddingForwardRows);
HWY_EXPORT(EmbeddingGradientColumns);

void EmbeddingForward(Team& team, const EmbeddingForwardArgs& args) {
  const int64_t rows = args.y.rows(), columns = args.y.columns();
  CheckArguments(args);
  ForEachRowBlock(team, rows, columns, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(EmbeddingForwardRows)(args, begin, end);
  });
}

void EmbeddingGradient(Team& team, const EmbeddingGradientArgs& args) {
  CheckArguments(args);
  if (args.accumulate == Accumulate::kOverwrite) {
    float* dtable = args.dtable.as<float>();
    ForEachBlock(team, args.dtable.elements(), kBlockElements, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(ZeroElements)(dtable, begin, end);
    });
  }
  ForEachBlock(team, args.dy.columns(), kGradientColumns, [&](int64_t first, int64_t last) {
    HWY_DYNAMIC_DISPATCH(EmbeddingGradientColumns)(args, first, last);
  });
}

}  // namespace sluice::cpu
#endif  // HWY_ONCE
