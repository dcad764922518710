// A piece: the part of a tensor that one shard file has, and how pieces lie in the complete tensor. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "proto/checkpoint.pb.h"
#include "stages/parameters.h"

namespace sluice {

// Elements [begin, begin + count) of `block` of the complete tensor, counted row by row in the block: a slice of a
// tensor-parallel shard, or with ZeRO-1 a member's part of one.
struct Piece {
  StateKind kind = StateKind::kParameter;
  std::string name;
  int64_t complete_rows = 0;
  int64_t complete_columns = 0;
  Slice block;  // of it only row, column, rows and columns count
  int64_t begin = 0;
  int64_t count = 0;
};

// The slices of a shard's parameter that this shard is to save: those of which it is the first holder. `begin`,
// `count`: only these elements of the shard's part, counted as in LayerStage::HeldState; a piece for each slice they
// touch.
std::vector<Piece> PiecesOf(const ParameterSpec& spec, StateKind kind, int64_t begin, int64_t count);

// What the tensor is called in its file. A whole parameter: its own name. Else "NAME.exp_avg" (first moment),
// "NAME.exp_avg_sq", then "[0:64,128:256]" (rows, columns), then "#0:4096" (elements).
std::string KeyOf(const Piece& piece);
// [rows, columns], [columns] of a vector, or [count].
std::vector<int64_t> ShapeOf(const Piece& piece);

proto::CheckpointPiece ToProto(const Piece& piece, uint64_t checksum);
// INVALID_ARGUMENT: it does not lie within its tensor, is too large, or of a kind that isn't known.
absl::StatusOr<Piece> FromProto(const proto::CheckpointPiece& piece);

struct Rectangle {
  int64_t row = 0, column = 0, rows = 0, columns = 0;
  int64_t elements() const { return rows * columns; }
  friend bool operator==(const Rectangle&, const Rectangle&) = default;
};
inline Rectangle RectangleOf(const Slice& slice) { return {slice.row, slice.column, slice.rows, slice.columns}; }
// "rows 0 to 63, columns 128 to 255"
std::string ToText(const Rectangle& rectangle);
// Nothing if they have no element in common.
std::optional<Rectangle> Intersection(const Rectangle& a, const Rectangle& b);

// A rectangle of the complete tensor and where it lies in the piece: its first element, and from row to row
// piece.block.columns.
struct PieceRectangle {
  Rectangle rectangle;
  int64_t offset = 0;
};
// At most three: the end of a row, whole rows, the beginning of one.
std::vector<PieceRectangle> RectanglesOf(const Piece& piece);

// Two of them that overlap, if any do.
std::optional<std::pair<size_t, size_t>> FindOverlap(absl::Span<const Rectangle> rectangles);
// A part of `block` that none of them has, if there is one.
std::optional<Rectangle> FindGap(const Rectangle& block, absl::Span<const Rectangle> rectangles);

}  // namespace sluice
