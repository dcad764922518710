// Which algorithm multiplies which product: plain values, kept as text, so that a plan can carry them and everyone who
// uses them gets the same bits. An algorithm is bound to the architecture and to the version of cuBLASLt.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/dtype.h"

namespace sluice::cuda {

enum class Transpose : uint8_t { kNo, kYes };

// What else a product does with its sums.
enum class Epilogue : uint8_t {
  kNone,
  kBias,          // adds a vector of m, of the result's type, to each column
  kBiasGradient,  // writes the n sums of op(b)'s columns, of the result's type
};

// d[m,n] = op(a)[m,k] op(b)[k,n] (+ c) (+ bias), column-major as cuBLASLt counts; c and d alike. All that an algorithm
// depends on.
struct MatmulShape {
  int64_t m = 0, n = 0, k = 0;
  Transpose transpose_a = Transpose::kNo, transpose_b = Transpose::kNo;
  DType in = DType::kF32, out = DType::kF32;
  Epilogue epilogue = Epilogue::kNone;
  int beta = 0;  // 1: c is added
  int64_t lda = 0, ldb = 0, ldd = 0;
  int alignment = 16;  // bytes that a, b, c and d are multiples of, at most 16
  friend auto operator<=>(const MatmulShape&, const MatmulShape&) = default;
};

// "TN 3072 256 768 bf16 bf16 bias 0 768 768 3072 16": transposes of a and b, m n k, types in and out, epilogue, beta,
// leading dimensions of a, b and d, alignment.
std::string ToText(const MatmulShape& shape);

struct MatmulChoice {
  std::array<uint64_t, 8> algorithm{};  // the library's
  int64_t workspace_bytes = 0;
  // With an epilogue: whether it is taken. 0: measured slower than a kernel of its own, or not supported.
  int fused = 1;
  friend bool operator==(const MatmulChoice&, const MatmulChoice&) = default;
};

struct MatmulChoices {
  std::string architecture;     // "sm_90"
  int64_t library_version = 0;  // cublasLtGetVersion()
  std::map<MatmulShape, MatmulChoice> of;
  friend bool operator==(const MatmulChoices&, const MatmulChoices&) = default;
};

// A line each, in the order of shapes: equal choices are equal texts. A plan hashes this.
std::string ToText(const MatmulChoices& choices);
// `file` is for errors. INVALID_ARGUMENT: "file:line: ...".
absl::StatusOr<MatmulChoices> MatmulChoicesFromText(absl::string_view text, const std::string& file);

// Of several GPUs of one kind; of two choices for one shape the first. INVALID_ARGUMENT: not of one kind, or no
// choices.
absl::StatusOr<std::string> MergeMatmulChoices(absl::Span<const std::string> texts);

}  // namespace sluice::cuda
