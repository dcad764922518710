// What a warp's lanes do together, against tables and products that are written down without looking at lanes.
#include "tests/gpu_sim/warp_calls.h"

#include <gtest/gtest.h>

#include <bit>
#include <vector>

#include "base/philox.h"
#include "kernels/dtype.h"

namespace gpu_sim {
namespace {

using Lanes = std::array<int, kLanes>;

// Every lane shuffles its own number.
Lanes Shuffled(ShuffleKind kind, int operand, int width) {
  std::array<WarpCall, kLanes> lanes;
  WarpCalls calls;
  for (int lane = 0; lane < kLanes; ++lane) {
    lanes[lane] = {.kind = WarpCall::Kind::kShuffle,
                   .bits = static_cast<uint64_t>(lane),
                   .shuffle = kind,
                   .operand = operand,
                   .width = width};
    calls[lane] = &lanes[lane];
  }
  EXPECT_EQ(RunTogether(calls), std::nullopt);
  Lanes results;
  for (int lane = 0; lane < kLanes; ++lane) results[lane] = static_cast<int>(lanes[lane].bits);
  return results;
}

// The CUDA programming guide's section on warp shuffles, width 32 and 8.
TEST(Shuffle, GivesEachLaneTheValueOfTheGuidesLane) {
  EXPECT_EQ(Shuffled(ShuffleKind::kIndex, 5, 32),
            (Lanes{5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5}));
  EXPECT_EQ(Shuffled(ShuffleKind::kIndex, 11, 8),
            (Lanes{3,  3,  3,  3,  3,  3,  3,  3,  11, 11, 11, 11, 11, 11, 11, 11,
                   19, 19, 19, 19, 19, 19, 19, 19, 27, 27, 27, 27, 27, 27, 27, 27}));
  EXPECT_EQ(Shuffled(ShuffleKind::kUp, 3, 32), (Lanes{0,  1,  2,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,
                                                      13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28}));
  EXPECT_EQ(Shuffled(ShuffleKind::kUp, 3, 8), (Lanes{0,  1,  2,  0,  1,  2,  3,  4,  8,  9,  10, 8,  9,  10, 11, 12,
                                                     16, 17, 18, 16, 17, 18, 19, 20, 24, 25, 26, 24, 25, 26, 27, 28}));
  EXPECT_EQ(Shuffled(ShuffleKind::kDown, 3, 32),
            (Lanes{3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18,
                   19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 29, 30, 31}));
  EXPECT_EQ(Shuffled(ShuffleKind::kDown, 3, 8),
            (Lanes{3,  4,  5,  6,  7,  5,  6,  7,  11, 12, 13, 14, 15, 13, 14, 15,
                   19, 20, 21, 22, 23, 21, 22, 23, 27, 28, 29, 30, 31, 29, 30, 31}));
  EXPECT_EQ(Shuffled(ShuffleKind::kXor, 1, 32),
            (Lanes{1,  0,  3,  2,  5,  4,  7,  6,  9,  8,  11, 10, 13, 12, 15, 14,
                   17, 16, 19, 18, 21, 20, 23, 22, 25, 24, 27, 26, 29, 28, 31, 30}));
  // Groups before the own one can be reached, those behind it can't.
  EXPECT_EQ(Shuffled(ShuffleKind::kXor, 8, 8), (Lanes{0,  1,  2,  3,  4,  5,  6,  7,  0,  1,  2,  3,  4,  5,  6,  7,
                                                      16, 17, 18, 19, 20, 21, 22, 23, 16, 17, 18, 19, 20, 21, 22, 23}));
}

TEST(Votes, CountLanesOfTheMaskOnly) {
  std::array<WarpCall, kLanes> lanes;
  WarpCalls calls{};
  for (int lane = 0; lane < 8; ++lane) {
    lanes[lane] = {.kind = WarpCall::Kind::kBallot, .mask = 0xff, .bits = static_cast<uint64_t>(lane % 3 == 0)};
    calls[lane] = &lanes[lane];
  }
  RunTogether(calls);
  EXPECT_EQ(lanes[0].bits, 0b01001001u);
  EXPECT_EQ(lanes[7].bits, 0b01001001u);
  for (int lane = 0; lane < 8; ++lane) {
    lanes[lane] = {.kind = WarpCall::Kind::kMatch, .mask = 0xff, .bits = static_cast<uint64_t>(lane / 3)};
  }
  RunTogether(calls);
  EXPECT_EQ(lanes[1].bits, 0b00000111u);
  EXPECT_EQ(lanes[5].bits, 0b00111000u);
  EXPECT_EQ(lanes[6].bits, 0b11000000u);
}

// Of the element (row, column): the lane and the place in its fragment, by the figures of the PTX manual.
struct Place {
  int lane, word, half;
};
Place PlaceOfA(int row, int k) { return {row % 8 * 4 + k % 8 / 2, row / 8 + k / 8 * 2, k % 2}; }
Place PlaceOfB(int k, int column) { return {column * 4 + k % 8 / 2, k / 8, k % 2}; }
Place PlaceOfD(int row, int column) { return {row % 8 * 4 + column / 2, row / 8 * 2 + column % 2, 0}; }

// Small integers, so that every order of sums is exact.
float Number(uint64_t seed, int i, int j) {
  return static_cast<float>(sluice::MixBits(seed * 10007 + i * 64 + j) % 17) - 8.0f;
}
void Put(uint32_t* word, int half, float value) {
  *word |= static_cast<uint32_t>(sluice::ToBFloat16(value).bits) << (16 * half);
}

TEST(Mma, IsThePlainProduct) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    uint32_t a[kLanes][4] = {}, b[kLanes][2] = {};
    float d[kLanes][4] = {};
    for (int k = 0; k < 16; ++k) {
      for (int row = 0; row < 16; ++row) {
        const Place at = PlaceOfA(row, k);
        Put(&a[at.lane][at.word], at.half, Number(seed, row, k));
      }
      for (int column = 0; column < 8; ++column) {
        const Place at = PlaceOfB(k, column);
        Put(&b[at.lane][at.word], at.half, Number(seed + 100, k, column));
      }
    }
    std::array<WarpCall, kLanes> lanes;
    WarpCalls calls;
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int i = 0; i < 4; ++i) d[lane][i] = static_cast<float>(lane + i);
      lanes[lane] = {.kind = WarpCall::Kind::kMma, .d = d[lane], .a = a[lane], .b = b[lane]};
      calls[lane] = &lanes[lane];
    }
    RunTogether(calls);
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        const Place at = PlaceOfD(row, column);
        float sum = static_cast<float>(at.lane + at.word);
        for (int k = 0; k < 16; ++k) sum += Number(seed, row, k) * Number(seed + 100, k, column);
        EXPECT_EQ(d[at.lane][at.word], sum) << row << " " << column;
      }
    }
  }
}

// Rows in any order in memory; the fragments of ldmatrix are those that mma takes.
TEST(LoadMatrix, GivesWhatMmaTakes) {
  alignas(16) uint16_t memory[4][8][8];
  for (int i = 0; i < 256; ++i) memory[i / 64][i / 8 % 8][i % 8] = static_cast<uint16_t>(i);
  for (const int matrices : {2, 4}) {
    for (const bool transposed : {false, true}) {
      uint32_t fragment[kLanes][4] = {};
      std::array<WarpCall, kLanes> lanes;
      WarpCalls calls;
      for (int lane = 0; lane < kLanes; ++lane) {
        lanes[lane] = {.kind = WarpCall::Kind::kLoadMatrix,
                       .matrices = matrices,
                       .transposed = transposed,
                       .row = memory[3 - lane / 8][lane % 8],
                       .fragment = fragment[lane]};
        calls[lane] = &lanes[lane];
      }
      RunTogether(calls);
      for (int matrix = 0; matrix < matrices; ++matrix) {
        for (int row = 0; row < 8; ++row) {
          for (int column = 0; column < 8; ++column) {
            const Place at = PlaceOfA(row, column);
            const uint16_t expected = transposed ? memory[3 - matrix][column][row] : memory[3 - matrix][row][column];
            EXPECT_EQ(fragment[at.lane][matrix] >> (16 * at.half) & 0xffff, expected);
          }
        }
      }
    }
  }
}

TEST(Shuffle, FromALaneOutsideOfTheMaskIsFound) {
  WarpCall first{.kind = WarpCall::Kind::kShuffle, .mask = 3, .operand = 1};
  WarpCall second{.kind = WarpCall::Kind::kShuffle, .mask = 3, .operand = 2};
  WarpCalls calls{};
  calls[0] = &first;
  calls[1] = &second;
  EXPECT_EQ(RunTogether(calls), 1);
}

}  // namespace
}  // namespace gpu_sim
