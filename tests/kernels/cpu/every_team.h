// What every operation of the CPU is run with: teams of different sizes.
#pragma once

#include <functional>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/team.h"
#include "tests/kernels/test_tensor.h"

namespace sluice::cpu {

// Runs the operation with teams of 1, 2 and 3 threads, demands the same bits, and returns the results.
inline std::vector<TestTensor> OnEveryTeam(const std::function<std::vector<TestTensor>(Team&)>& run) {
  static Team one(1, {}), two(2, {}), three(3, {});
  std::vector<TestTensor> expected = run(one);
  for (Team* team : {&two, &three}) {
    const std::vector<TestTensor> results = run(*team);
    for (size_t i = 0; i < results.size(); ++i) {
      EXPECT_TRUE(results[i].SameBits(expected[i])) << "output " << i << " with " << team->size() << " threads";
    }
  }
  return expected;
}

}  // namespace sluice::cpu
