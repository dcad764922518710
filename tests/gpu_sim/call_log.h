// The calls that a program made, for reports that name them later. Threads: one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <source_location>
#include <string>
#include <vector>

namespace gpu_sim {

class CallLog {
 public:
  static constexpr int kNoStream = -1;

  // The place of a call, and how many functions are named from there outwards.
  struct Stack {
    void* return_address = nullptr;
    int depth = 0;
  };

  // `name` lives for ever. Returns the call's number.
  uint32_t Add(const char* name, const std::source_location& site, int device, int stream, Stack stack);
  uint32_t last() const { return static_cast<uint32_t>(calls_.size()) - 1; }
  // "NormForward at kernels/cuda/norm.cu:88 on stream 2 of device 0"; the same for all calls from one place on one
  // stream.
  std::string Describe(uint32_t call) const;
  // Where a call was made: the line, then its callers from the inside out. The same text in each run of a program.
  std::string Site(uint32_t call) const;

 private:
  struct Call {
    const char* name;
    std::source_location site;
    int device;
    int stream;
    uint32_t stack;  // index of stacks_; 0: none
  };
  std::vector<Call> calls_;
  std::map<std::vector<void*>, uint32_t> stack_numbers_;
  std::vector<std::string> stacks_ = {""};
};

}  // namespace gpu_sim
