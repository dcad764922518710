// A Device that times every operation on its way to another device: what `sluice bench` and `sluice profile` print. The
// records around each operation cost little on a CPU; still, a profiled step is not one to quote as a step time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/device.h"
#include "kernels/operations.h"

namespace sluice {

// All calls of one operation with the same sizes.
struct OperationTime {
  std::string operation;             // "linear forward"
  int64_t m = 0, n = 0, k = 0;       // of matrix products: rows, outputs, inputs; else 0
  DType compute = DType::kF32;       // of matrix products
  int64_t calls = 0;
  Nanoseconds time = 0;              // in all
  double flops = 0;                  // in all, of matrix products (attention's included)
};

// Threads: written by the issuing thread of one device, collected when its streams are idle.
class OperationProfile {
 public:
  struct Record {
    OperationTime what;
    EventRef end;
  };
  void Add(Record record) { records_.push_back(std::move(record)); }
  // Sums up and forgets what was recorded since the last call. REQUIRES: all of it has ended.
  std::vector<OperationTime> Collect();

 private:
  std::vector<Record> records_;
};

// Both outlive the result. Streams are those of `device`.
std::unique_ptr<Device> NewProfiledDevice(Device* device, OperationProfile* profile);

}  // namespace sluice
