#include "tests/gpu_sim/warp_calls.h"

#include <bit>
#include <cstring>

namespace gpu_sim {
namespace {

// PTX, shfl.sync.
std::optional<int> RunShuffle(const WarpCalls& calls) {
  std::array<uint64_t, kLanes> values{};
  for (int lane = 0; lane < kLanes; ++lane) {
    if (calls[lane] != nullptr) values[lane] = calls[lane]->bits;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    WarpCall* const call = calls[lane];
    if (call == nullptr) continue;
    const int source = ShuffleSource(lane, call->shuffle, call->operand, call->width);
    if (calls[source] == nullptr) return lane;
    call->bits = values[source];
  }
  return std::nullopt;
}

void RunBallot(const WarpCalls& calls) {
  uint64_t votes = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (calls[lane] != nullptr && calls[lane]->bits != 0) votes |= uint64_t{1} << lane;
  }
  for (WarpCall* call : calls) {
    if (call != nullptr) call->bits = votes;
  }
}

void RunMatch(const WarpCalls& calls) {
  std::array<uint64_t, kLanes> alike{};
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int other = 0; calls[lane] != nullptr && other < kLanes; ++other) {
      if (calls[other] != nullptr && calls[other]->bits == calls[lane]->bits) alike[lane] |= uint64_t{1} << other;
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    if (calls[lane] != nullptr) calls[lane]->bits = alike[lane];
  }
}

// PTX, ldmatrix: lane 8i+r has the address of row r of matrix i.
void RunLoadMatrix(const WarpCalls& calls) {
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int matrix = 0; matrix < calls[lane]->matrices; ++matrix) {
      uint16_t pair[2];
      for (int i = 0; i < 2; ++i) {
        const int major = lane / 4, minor = lane % 4 * 2 + i;
        const int row = calls[lane]->transposed ? minor : major, column = calls[lane]->transposed ? major : minor;
        std::memcpy(&pair[i], static_cast<const uint16_t*>(calls[8 * matrix + row]->row) + column, sizeof(pair[i]));
      }
      calls[lane]->fragment[matrix] = pair[0] | uint32_t{pair[1]} << 16;
    }
  }
}

float FromBf16(uint32_t word, int half) { return std::bit_cast<float>(half == 0 ? word << 16 : word & 0xffff0000u); }

// PTX, mma.m16n8k16 with .bf16: lane = 4 * group + member.
void RunMma(const WarpCalls& calls) {
  float a[16][16], b[16][8];  // b[k][n]
  for (int lane = 0; lane < kLanes; ++lane) {
    const int group = lane / 4, member = lane % 4;
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 4; ++i) {
        a[group + i % 2 * 8][member * 2 + i / 2 * 8 + half] = FromBf16(calls[lane]->a[i], half);
      }
      for (int i = 0; i < 2; ++i) b[member * 2 + i * 8 + half][group] = FromBf16(calls[lane]->b[i], half);
    }
  }
  float product[16][8] = {};
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) product[row][column] += a[row][k] * b[k][column];
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) calls[lane]->d[i] += product[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

}  // namespace

int ShuffleSource(int lane, ShuffleKind kind, int operand, int width) {
  const int segment = lane & ~(width - 1);
  switch (kind) {
    case ShuffleKind::kIndex:
      return segment | (operand & (width - 1));
    case ShuffleKind::kUp:
      return lane - operand >= segment ? lane - operand : lane;
    case ShuffleKind::kDown:
      return lane + operand < segment + width ? lane + operand : lane;
    case ShuffleKind::kXor:
      return (lane ^ operand) < segment + width ? lane ^ operand : lane;
  }
  return lane;
}

std::optional<int> RunTogether(const WarpCalls& calls) {
  for (const WarpCall* call : calls) {
    if (call == nullptr) continue;
    switch (call->kind) {
      case WarpCall::Kind::kSync:
        return std::nullopt;
      case WarpCall::Kind::kShuffle:
        return RunShuffle(calls);
      case WarpCall::Kind::kBallot:
        RunBallot(calls);
        return std::nullopt;
      case WarpCall::Kind::kMatch:
        RunMatch(calls);
        return std::nullopt;
      case WarpCall::Kind::kLoadMatrix:
        RunLoadMatrix(calls);
        return std::nullopt;
      case WarpCall::Kind::kMma:
        RunMma(calls);
        return std::nullopt;
    }
  }
  return std::nullopt;
}

}  // namespace gpu_sim
