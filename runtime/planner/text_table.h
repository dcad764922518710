// Rows of cells as text, for people.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sluice {

// The first row is the heading; columns are as wide as their widest cell.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> heading) { rows_.push_back(std::move(heading)); }
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }

  // Columns in `left` are flush left, all others right.
  std::string ToString(const std::vector<size_t>& left = {}) const {
    std::string text;
    for (const std::vector<std::string>& row : rows_) {
      std::string line;
      for (size_t i = 0; i < row.size(); ++i) {
        const std::string space(Width(i) - row[i].size(), ' ');
        const bool flush_left = std::find(left.begin(), left.end(), i) != left.end();
        absl::StrAppend(&line, "  ", flush_left ? row[i] : space, flush_left ? space : row[i]);
      }
      line.erase(line.find_last_not_of(' ') + 1);
      absl::StrAppend(&text, line, "\n");
    }
    return text;
  }

 private:
  size_t Width(size_t column) const {
    size_t width = 0;
    for (const auto& row : rows_) width = std::max(width, row[column].size());
    return width;
  }
  std::vector<std::vector<std::string>> rows_;
};

// "1,234,567"
inline std::string Grouped(int64_t number) {
  const std::string digits = absl::StrCat(number);
  std::string grouped;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) grouped += ',';
    grouped += digits[i];
  }
  return grouped;
}

}  // namespace sluice
