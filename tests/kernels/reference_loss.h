// Cross-entropy and embedding in double precision, written from their definitions.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace sluice::reference {

inline double LogSumExp(const std::vector<double>& logits, int64_t row, int64_t columns) {
  double maximum = logits[row * columns], sum = 0;
  for (int64_t v = 0; v < columns; ++v) maximum = std::max(maximum, logits[row * columns + v]);
  for (int64_t v = 0; v < columns; ++v) sum += std::exp(logits[row * columns + v] - maximum);
  return maximum + std::log(sum);
}

// Sum over the rows whose target is not negative.
inline double CrossEntropy(const std::vector<double>& logits, const std::vector<int32_t>& targets, int64_t columns) {
  double total = 0;
  for (size_t row = 0; row < targets.size(); ++row) {
    if (targets[row] >= 0) total += LogSumExp(logits, row, columns) - logits[row * columns + targets[row]];
  }
  return total;
}

inline std::vector<double> CrossEntropyGradient(const std::vector<double>& logits, const std::vector<int32_t>& targets,
                                                int64_t columns, double scale) {
  std::vector<double> gradient(logits.size(), 0.0);
  for (size_t row = 0; row < targets.size(); ++row) {
    if (targets[row] < 0) continue;
    const double lse = LogSumExp(logits, row, columns);
    for (int64_t v = 0; v < columns; ++v) {
      gradient[row * columns + v] = scale * (std::exp(logits[row * columns + v] - lse) - (v == targets[row]));
    }
  }
  return gradient;
}

inline std::vector<double> Embedding(const std::vector<double>& table, const std::vector<double>& position_table,
                                     const std::vector<int32_t>& tokens, const std::vector<int32_t>& positions,
                                     int64_t columns) {
  std::vector<double> y(tokens.size() * columns);
  for (size_t row = 0; row < tokens.size(); ++row) {
    for (int64_t c = 0; c < columns; ++c) {
      y[row * columns + c] = table[tokens[row] * columns + c];
      if (!position_table.empty()) y[row * columns + c] += position_table[positions[row] * columns + c];
    }
  }
  return y;
}

inline std::vector<double> EmbeddingGradient(const std::vector<double>& dy, const std::vector<int32_t>& indices,
                                             int64_t table_rows, int64_t columns) {
  std::vector<double> gradient(table_rows * columns, 0.0);
  for (size_t row = 0; row < indices.size(); ++row) {
    for (int64_t c = 0; c < columns; ++c) gradient[indices[row] * columns + c] += dy[row * columns + c];
  }
  return gradient;
}

}  // namespace sluice::reference
