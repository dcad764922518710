// The floor of an operation: FLOPs at the best rate, or bytes at the memory's.
#include "tools/measure/floor.h"

#include "gtest/gtest.h"

namespace sluice::tools {
namespace {

OperationTime Forward() {
  return {.operation = "linear forward",
          .products = Products::kForward,
          .m = 512,
          .n = 768,
          .k = 768,
          .calls = 1,
          .flops = 1e9};
}

MachineRates Rates() {
  MachineRates rates{.memory = {.read = 10e9, .write = 5e9, .update = 8e9}};
  rates.products[ShapeOf(Forward())] = {.own = 50e9, .packed = 100e9, .plain = 20e9};
  return rates;
}

TEST(Floor, IsTheLargerOfFlopsAndBytes) {
  OperationTime operation = Forward();
  operation.read_bytes = 50e6;
  FloorTime floor = FloorOf(operation, Rates());
  EXPECT_DOUBLE_EQ(floor.flops_ms, 10);  // at oneDNN's packed rate, the best
  EXPECT_DOUBLE_EQ(floor.bytes_ms, 5);
  EXPECT_DOUBLE_EQ(floor.ms, 10);
  operation.read_bytes = 300e6;
  EXPECT_DOUBLE_EQ(FloorOf(operation, Rates()).ms, 30);
}

TEST(Floor, MovesBytesInTheFasterOfTwoWays) {
  OperationTime adam{.operation = "AdamW", .read_bytes = 16e6, .written_bytes = 12e6};
  // Apart 1.6 + 2.4; updating 12 MB at 8 GB/s and reading 4 MB more 1.5 + 0.4.
  EXPECT_DOUBLE_EQ(FloorOf(adam, Rates()).ms, 1.9);
  MachineRates slow_updates = Rates();
  slow_updates.memory.update = 1e9;
  EXPECT_DOUBLE_EQ(FloorOf(adam, slow_updates).ms, 4.0);
}

TEST(Floor, NothingWasMeasured) {
  OperationTime operation = Forward();
  operation.read_bytes = 1e6;
  EXPECT_EQ(FloorOf(operation, {}).ms, 0);
  operation.m = 1;  // a shape without rates
  EXPECT_EQ(FloorOf(operation, Rates()).flops_ms, 0);
}

}  // namespace
}  // namespace sluice::tools
