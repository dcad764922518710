// A small job in many layouts.
#pragma once

#include <string>

#include "tests/equivalence/run_job.h"

namespace sluice {

// A sanitizer makes each step some twenty times as long, and looks at how things are done and not at the numbers.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kSteps = 2;
#else
constexpr int kSteps = 20;
#endif

struct Settings {
  std::string family = "gpt2";
  std::string precision = "f32";
  std::string recompute = "none";
  int micro_batches = 5;
  int groups = 1;
  int pp = 1;
  std::string schedule = "1f1b";
  int threads = 1;
  int chunks = 1;
  bool tied = true;
  std::string file;  // in place of a schedule by name
  int steps = kSteps;
  bool post_validation = false;
  double clip = 0.5;
  double learning_rate = 0.003;
  int dp = 1;
  bool zero1 = false;
  int channels = 48;
  int tp = 1;
  bool sequence_parallel = false;
  int vocabulary = 256;
  Messages messages = Messages::kExchanged;
};

// Small, odd and complete: dropout, tied weights, clipping, held-out text, documents apart.
std::string JobText(const Settings& settings);
// For people.
std::string Name(const Settings& settings);
// The same job on one device, with one thread: the same numbers.
Settings OneDevice(Settings settings);
// What the job trains on.
void WriteTexts(const std::string& folder);

}  // namespace sluice
