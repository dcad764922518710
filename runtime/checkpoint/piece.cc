#include "runtime/checkpoint/piece.h"

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

const char* Suffix(StateKind kind) {
  switch (kind) {
    case StateKind::kParameter:
      return "";
    case StateKind::kGradient:
      return ".grad";
    case StateKind::kFirstMoment:
      return ".exp_avg";
    case StateKind::kSecondMoment:
      return ".exp_avg_sq";
  }
  return "";
}

bool WholeBlock(const Piece& piece) { return piece.begin == 0 && piece.count == piece.block.elements(); }

bool WithinTensor(const Piece& piece) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max() / 8;
  const auto within = [](int64_t begin, int64_t count, int64_t all) {
    return begin >= 0 && count >= 0 && all >= 0 && begin <= all && count <= all - begin;
  };
  return within(piece.block.row, piece.block.rows, piece.complete_rows) &&
         within(piece.block.column, piece.block.columns, piece.complete_columns) &&
         (piece.complete_columns == 0 || piece.complete_rows <= kMost / piece.complete_columns) &&
         within(piece.begin, piece.count, piece.block.elements());
}

}  // namespace

std::vector<Piece> PiecesOf(const ParameterSpec& spec, StateKind kind, int64_t begin, int64_t count) {
  std::vector<Piece> pieces;
  int64_t slice_begin = 0;
  for (const Slice& slice : spec.slices) {
    const int64_t from = std::max(begin, slice_begin);
    const int64_t to = std::min(begin + count, slice_begin + slice.elements());
    if (slice.holder == 0 && from < to) {
      pieces.push_back({.kind = kind,
                        .name = spec.name,
                        .complete_rows = spec.complete_rows,
                        .complete_columns = spec.complete_columns,
                        .block = slice,
                        .begin = from - slice_begin,
                        .count = to - from});
    }
    slice_begin += slice.elements();
  }
  return pieces;
}

std::string KeyOf(const Piece& piece) {
  std::string key = absl::StrCat(piece.name, Suffix(piece.kind));
  const Slice& block = piece.block;
  if (block.rows != piece.complete_rows || block.columns != piece.complete_columns) {
    absl::StrAppend(&key, "[", block.row, ":", block.row + block.rows, ",", block.column, ":",
                    block.column + block.columns, "]");
  }
  if (!WholeBlock(piece)) absl::StrAppend(&key, "#", piece.begin, ":", piece.begin + piece.count);
  return key;
}

std::vector<int64_t> ShapeOf(const Piece& piece) {
  if (!WholeBlock(piece)) return {piece.count};
  if (piece.complete_rows == 1) return {piece.block.columns};
  return {piece.block.rows, piece.block.columns};
}

proto::CheckpointPiece ToProto(const Piece& piece, uint64_t checksum) {
  proto::CheckpointPiece result;
  result.set_kind(piece.kind == StateKind::kFirstMoment    ? proto::CheckpointPiece::first_moment
                  : piece.kind == StateKind::kSecondMoment ? proto::CheckpointPiece::second_moment
                                                           : proto::CheckpointPiece::parameter);
  result.set_name(piece.name);
  result.set_complete_rows(piece.complete_rows);
  result.set_complete_columns(piece.complete_columns);
  result.set_row(piece.block.row);
  result.set_column(piece.block.column);
  result.set_rows(piece.block.rows);
  result.set_columns(piece.block.columns);
  result.set_begin(piece.begin);
  result.set_count(piece.count);
  result.set_checksum(checksum);
  return result;
}

absl::StatusOr<Piece> FromProto(const proto::CheckpointPiece& piece) {
  Piece result{
      .name = piece.name(),
      .complete_rows = piece.complete_rows(),
      .complete_columns = piece.complete_columns(),
      .block = {.row = piece.row(), .column = piece.column(), .rows = piece.rows(), .columns = piece.columns()},
      .begin = piece.begin(),
      .count = piece.count()};
  switch (piece.kind()) {
    case proto::CheckpointPiece::parameter:
      break;
    case proto::CheckpointPiece::first_moment:
      result.kind = StateKind::kFirstMoment;
      break;
    case proto::CheckpointPiece::second_moment:
      result.kind = StateKind::kSecondMoment;
      break;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("\"", piece.name(), "\" is of kind ", static_cast<int>(piece.kind()), ", which is not known"));
  }
  if (!WithinTensor(result)) {
    return absl::InvalidArgumentError(absl::StrCat("a piece of \"", piece.name(), "\" does not lie within the tensor"));
  }
  return result;
}

std::string ToText(const Rectangle& rectangle) {
  return absl::StrCat("rows ", rectangle.row, " to ", rectangle.row + rectangle.rows - 1, ", columns ",
                      rectangle.column, " to ", rectangle.column + rectangle.columns - 1);
}

std::optional<Rectangle> Intersection(const Rectangle& a, const Rectangle& b) {
  const int64_t row = std::max(a.row, b.row), column = std::max(a.column, b.column);
  const Rectangle both{row, column, std::min(a.row + a.rows, b.row + b.rows) - row,
                       std::min(a.column + a.columns, b.column + b.columns) - column};
  if (both.rows <= 0 || both.columns <= 0) return std::nullopt;
  return both;
}

std::vector<PieceRectangle> RectanglesOf(const Piece& piece) {
  const Slice& block = piece.block;
  std::vector<PieceRectangle> rectangles;
  int64_t element = piece.begin;
  const int64_t end = piece.begin + piece.count;
  while (element < end) {
    const int64_t row = element / block.columns, column = element % block.columns;
    const bool whole_rows = column == 0 && end - element >= block.columns;
    const int64_t rows = whole_rows ? (end - element) / block.columns : 1;
    const int64_t columns = whole_rows ? block.columns : std::min(block.columns - column, end - element);
    rectangles.push_back({{block.row + row, block.column + column, rows, columns}, element - piece.begin});
    element += rows * columns;
  }
  return rectangles;
}

// A line goes down the rows; those that it crosses stand in order of their columns, so that only neighbours can
// overlap.
std::optional<std::pair<size_t, size_t>> FindOverlap(absl::Span<const Rectangle> rectangles) {
  struct Border {
    int64_t row;
    bool begins;
    size_t of;
  };
  std::vector<Border> borders;
  for (size_t i = 0; i < rectangles.size(); ++i) {
    if (rectangles[i].elements() == 0) continue;
    borders.push_back({rectangles[i].row, true, i});
    borders.push_back({rectangles[i].row + rectangles[i].rows, false, i});
  }
  std::sort(borders.begin(), borders.end(), [](const Border& a, const Border& b) {
    return std::tie(a.row, a.begins, a.of) < std::tie(b.row, b.begins, b.of);
  });
  std::map<int64_t, size_t> crossed;  // by first column
  for (const Border& border : borders) {
    const Rectangle& rectangle = rectangles[border.of];
    if (!border.begins) {
      crossed.erase(rectangle.column);
      continue;
    }
    const auto next = crossed.lower_bound(rectangle.column);
    if (next != crossed.end() && next->first < rectangle.column + rectangle.columns) {
      return std::pair(next->second, border.of);
    }
    if (next != crossed.begin()) {
      const auto& [column, before] = *std::prev(next);
      if (column + rectangles[before].columns > rectangle.column) return std::pair(before, border.of);
    }
    crossed.emplace(rectangle.column, border.of);
  }
  return std::nullopt;
}

std::optional<Rectangle> FindGap(const Rectangle& block, absl::Span<const Rectangle> rectangles) {
  std::vector<Rectangle> inside;
  std::vector<int64_t> rows = {block.row, block.row + block.rows};
  for (const Rectangle& rectangle : rectangles) {
    const std::optional<Rectangle> part = Intersection(block, rectangle);
    if (!part.has_value()) continue;
    inside.push_back(*part);
    rows.insert(rows.end(), {part->row, part->row + part->rows});
  }
  std::sort(rows.begin(), rows.end());
  std::sort(inside.begin(), inside.end(), [](const Rectangle& a, const Rectangle& b) { return a.column < b.column; });
  for (size_t i = 0; i + 1 < rows.size(); ++i) {
    if (rows[i] == rows[i + 1]) continue;
    int64_t column = block.column;
    const int64_t end = block.column + block.columns;
    for (const Rectangle& part : inside) {
      if (part.row > rows[i] || part.row + part.rows <= rows[i]) continue;
      if (part.column > column) return Rectangle{rows[i], column, rows[i + 1] - rows[i], part.column - column};
      column = std::max(column, part.column + part.columns);
    }
    if (column < end) return Rectangle{rows[i], column, rows[i + 1] - rows[i], end - column};
  }
  return std::nullopt;
}

}  // namespace sluice
