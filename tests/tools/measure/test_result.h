// A result as a benchmark would give it.
#pragma once

#include <vector>

#include "tools/measure/result.h"

namespace sluice::tools {

inline BenchResult SomeResult() {
  BenchResult result{.program = "sluice 0.1.0", .processor = "A processor, AVX2", .threads = 2};
  result.job = {{"model", "gpt2"}, {"precision", "f32"}, {"ranks", "2"}};
  result.tokens = 4096;
  result.step_ms = {100, 101, 99, 100, 102};
  result.bubble = 0.11;
  result.simulated_ms = 98;
  result.traced_ms = 100;
  result.overhead_share = 0.005;
  result.planned_bytes = 1 << 20;
  result.peak_bytes = 3 << 20;
  result.first_step_seconds = 0.5;
  result.memory = {10e9, 8e9, 6e9};
  BenchedOperation forward{.operation = "linear forward",
                           .shape = {Products::kForward, 512, 3072, 768, DType::kBF16},
                           .calls = 96,
                           .ms = {50, 51, 49},
                           .flops = 2e9,
                           .read_bytes = 1e6,
                           .rates = {.own = 1e11, .packed = 2e11, .plain = 5e10},
                           .floor = {.flops_ms = 10, .bytes_ms = 1, .ms = 10}};
  BenchedOperation adam{.operation = "AdamW",
                        .calls = 53,
                        .ms = {20, 20.1, 19.9},
                        .read_bytes = 16e6,
                        .written_bytes = 12e6,
                        .floor = {.bytes_ms = 3, .ms = 3}};
  result.operations = {forward, adam};
  return result;
}

}  // namespace sluice::tools
