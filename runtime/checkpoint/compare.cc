#include "runtime/checkpoint/compare.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr int64_t kChunkElements = 1 << 20;

// Of values, some at a time.
class Difference {
 public:
  // Calls with elements from `begin` on; how far the largest difference is from there is kept.
  void Add(absl::Span<const float> a, absl::Span<const float> b, int64_t begin) {
    for (size_t i = 0; i < a.size(); ++i) {
      squares_ += double{a[i]} * a[i];
      if (std::bit_cast<uint32_t>(a[i]) == std::bit_cast<uint32_t>(b[i])) continue;
      ++differing_;
      double apart = std::abs(double{a[i]} - b[i]);
      if (std::isnan(apart)) apart = std::numeric_limits<double>::infinity();
      difference_squares_ += apart * apart;
      if (differing_ > 1 && apart <= largest_) continue;
      largest_ = apart;
      at_ = begin + static_cast<int64_t>(i);
    }
  }
  void Tell(int64_t columns, TensorDifference* result) const {
    result->differing = differing_;
    result->largest = largest_;
    result->row = at_ / std::max<int64_t>(1, columns);
    result->column = at_ % std::max<int64_t>(1, columns);
    if (difference_squares_ > 0) result->relative = std::sqrt(difference_squares_ / squares_);
  }

 private:
  int64_t differing_ = 0, at_ = 0;
  double largest_ = 0, squares_ = 0, difference_squares_ = 0;
};

absl::Status CompareValues(const Checkpoint& a, const Checkpoint& b, const Checkpoint::Tensor& tensor,
                           TensorDifference* result) {
  const int64_t rows_at_once = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, tensor.columns));
  std::vector<float> of_a, of_b;
  Difference difference;
  for (int64_t row = 0; row < tensor.rows; row += rows_at_once) {
    const Slice block{.row = row, .rows = std::min(rows_at_once, tensor.rows - row), .columns = tensor.columns};
    of_a.resize(static_cast<size_t>(block.elements()));
    of_b.resize(of_a.size());
    RETURN_IF_ERROR(a.Read(tensor.kind, tensor.name, block, absl::MakeSpan(of_a)));
    RETURN_IF_ERROR(b.Read(tensor.kind, tensor.name, block, absl::MakeSpan(of_b)));
    difference.Add(of_a, of_b, row * tensor.columns);
  }
  difference.Tell(tensor.columns, result);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<TensorDifference>> Compare(const Checkpoint& a, const Checkpoint& b) {
  std::map<std::pair<StateKind, std::string>, Checkpoint::Tensor> only_b;
  for (const Checkpoint::Tensor& tensor : b.tensors()) only_b.emplace(std::pair(tensor.kind, tensor.name), tensor);
  std::vector<TensorDifference> differences;
  for (const Checkpoint::Tensor& tensor : a.tensors()) {
    TensorDifference result{.kind = tensor.kind, .name = tensor.name, .elements = tensor.elements()};
    const auto other = only_b.find({tensor.kind, tensor.name});
    if (other == only_b.end()) {
      result.apart = "only in the first";
    } else if (other->second.rows != tensor.rows || other->second.columns != tensor.columns) {
      result.apart = absl::StrCat("[", tensor.rows, ", ", tensor.columns, "] and [", other->second.rows, ", ",
                                  other->second.columns, "]");
    } else {
      RETURN_IF_ERROR(CompareValues(a, b, tensor, &result));
    }
    if (other != only_b.end()) only_b.erase(other);
    differences.push_back(std::move(result));
  }
  for (const auto& [key, tensor] : only_b) {
    differences.push_back(
        {.kind = tensor.kind, .name = tensor.name, .apart = "only in the second", .elements = tensor.elements()});
  }
  std::stable_sort(differences.begin(), differences.end(), [](const TensorDifference& x, const TensorDifference& y) {
    return std::tuple(x.apart.empty(), -x.largest, x.differing == 0) <
           std::tuple(y.apart.empty(), -y.largest, y.differing == 0);
  });
  return differences;
}

}  // namespace sluice
