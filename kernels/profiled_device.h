// A Device that times every operation on its way to another device: what `sluice bench` and `sluice profile` print. The
// records around each operation cost little on a CPU; still, a profiled step is not one to quote as a step time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/device.h"
#include "kernels/operations.h"

namespace sluice {

// What an operation multiplies.
enum class Products : uint8_t {
  kNone,
  kForward,         // y[M,N] = x[M,K] . weight[N,K]^T
  kInputGradient,   // dx[M,K] = dy[M,N] . weight
  kWeightGradient,  // dweight[N,K] += dy^T . x
  kAttention,       // per head, of M = N = T positions and K = D columns
};

// All calls of one operation with the same sizes.
struct OperationTime {
  std::string operation;  // "linear forward"
  Products products = Products::kNone;
  int64_t m = 0, n = 0, k = 0;  // of products; else 0
  DType compute = DType::kF32;  // of products
  int label = -1;               // what they were done for, see OperationProfile::SetLabel()
  int64_t calls = 0;
  Nanoseconds time = 0;  // in all
  double flops = 0;      // in all, of products
  // In all, what must come from and go to memory because a whole model lies between one use and the next: weights,
  // gradients of parameters, optimizer state. What one layer hands to the next may stay in a cache: 0 bytes.
  double read_bytes = 0;
  double written_bytes = 0;
};

// Threads: written by the issuing thread of one device, collected when its streams are idle.
class OperationProfile {
 public:
  struct Record {
    OperationTime what;
    EventRef end;
    EventRef begin;  // absent: when the work before `end` began
  };
  // Operations issued from now on are done for `label` (say, a layer); -1: for nothing in particular.
  void SetLabel(int label) { label_ = label; }
  void Add(Record record) {
    record.what.label = label_;
    records_.push_back(std::move(record));
  }
  // Sums up and forgets what was recorded since the last call. REQUIRES: all of it has ended.
  std::vector<OperationTime> Collect();

 private:
  int label_ = -1;
  std::vector<Record> records_;
};

// Both outlive the result. Streams are those of `device`.
std::unique_ptr<Device> NewProfiledDevice(Device* device, OperationProfile* profile);

}  // namespace sluice
