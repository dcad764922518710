#include "tools/measure/floor.h"

namespace sluice::tools {
namespace {

// Reading and writing one after the other, or bytes that are both read and written updated in one go.
double SecondsToMove(double read, double written, const cpu::MemoryRate& rate) {
  if (rate.read <= 0 || rate.write <= 0 || rate.update <= 0) return 0;
  const double updated = std::min(read, written);
  const double apart = read / rate.read + written / rate.write;
  return std::min(apart, updated / rate.update + (read - updated) / rate.read + (written - updated) / rate.write);
}

}  // namespace

ProductShape ShapeOf(const OperationTime& operation) {
  return {operation.products, operation.m, operation.n, operation.k, operation.compute};
}

FloorTime FloorOf(const OperationTime& operation, const MachineRates& rates) {
  FloorTime floor{.bytes_ms = 1e3 * SecondsToMove(operation.read_bytes, operation.written_bytes, rates.memory)};
  if (const auto found = rates.products.find(ShapeOf(operation)); found != rates.products.end()) {
    if (const double rate = found->second.best(); rate > 0) floor.flops_ms = 1e3 * operation.flops / rate;
  }
  floor.ms = std::max(floor.flops_ms, floor.bytes_ms);
  return floor;
}

}  // namespace sluice::tools
