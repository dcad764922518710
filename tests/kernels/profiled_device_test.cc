// What a profile says of each operation: calls, FLOPs, bytes that must move, and what it was done for.
#include "kernels/profiled_device.h"

#include <memory>
#include <vector>

#include "base/world.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_device.h"

namespace sluice {
namespace {

class ProfiledDeviceTest : public testing::Test {
 protected:
  TensorView Tensor(DType type, const Shape& shape) {
    TensorView view{nullptr, type, shape};
    buffers_.push_back(*profiled_->Allocate(view.bytes(), "test"));
    view.data = buffers_.back().data();
    return view;
  }
  std::vector<OperationTime> Collect() {
    stream_->Drain();
    return profile_.Collect();
  }

  std::unique_ptr<World> world_ = NewRealWorld();
  OperationProfile profile_;
  std::unique_ptr<Device> device_ = cpu::NewCpuDevice(world_.get(), {.threads = 1});
  std::unique_ptr<Device> profiled_ = NewProfiledDevice(device_.get(), &profile_);
  std::unique_ptr<Stream> stream_ = profiled_->NewStream("test");
  std::vector<Buffer> buffers_;
};

TEST_F(ProfiledDeviceTest, LinearMovesItsWeightAndItsGradient) {
  constexpr int64_t kM = 8, kN = 32, kK = 16;
  const Operations& operations = profiled_->operations();
  const LinearShape shape{kN, kK, DType::kF32};
  const TensorView x = Tensor(DType::kF32, {kM, kK}), y = Tensor(DType::kF32, {kM, kN});
  const TensorView weight = Tensor(DType::kF32, {kN, kK}), gradient = Tensor(DType::kF32, {kN, kK});
  const TensorView packed = Tensor(DType::kI32, {operations.PackedLinearBytes(shape) / 4 + 1});
  operations.PackLinear(*stream_, shape, weight, packed);
  operations.LinearForward(*stream_, {.shape = shape, .x = x, .packed = packed, .y = y});
  for (const Accumulate accumulate : {Accumulate::kOverwrite, Accumulate::kAdd}) {
    operations.LinearWeightGradient(*stream_,
                                    {.shape = shape, .x = x, .dy = y, .dweight = gradient, .accumulate = accumulate});
  }
  const std::vector<OperationTime> times = Collect();  // by name
  ASSERT_EQ(times.size(), 3u);
  EXPECT_EQ(times[0].operation, "linear forward");
  EXPECT_EQ(times[0].products, Products::kForward);
  EXPECT_EQ(times[0].flops, 2.0 * kM * kN * kK);
  EXPECT_EQ(times[0].read_bytes, 4.0 * kN * kK);
  EXPECT_EQ(times[0].written_bytes, 0);
  EXPECT_EQ(times[1].operation, "linear weight gradient");
  EXPECT_EQ(times[1].calls, 2);
  EXPECT_EQ(times[1].read_bytes, 4.0 * kN * kK);  // the second one adds to it
  EXPECT_EQ(times[1].written_bytes, 2 * 4.0 * kN * kK);
  EXPECT_EQ(times[2].operation, "pack weights");
  EXPECT_EQ(times[2].written_bytes, 4.0 * kN * kK);
  EXPECT_GT(times[1].time, 0);
}

TEST_F(ProfiledDeviceTest, OptimizerMovesItsState) {
  const TensorView parameter = Tensor(DType::kF32, {1000}), gradient = Tensor(DType::kF32, {1000});
  const TensorView m = Tensor(DType::kF32, {1000}), v = Tensor(DType::kF32, {1000});
  const TensorView control = Tensor(DType::kF32, {4});
  profiled_->operations().AdamW(*stream_,
                                {.parameter = parameter, .gradient = gradient, .m = m, .v = v, .control = control});
  const std::vector<OperationTime> times = Collect();
  ASSERT_EQ(times.size(), 1u);
  EXPECT_EQ(times[0].read_bytes, 16000);
  EXPECT_EQ(times[0].written_bytes, 12000);
  EXPECT_EQ(times[0].products, Products::kNone);
}

TEST_F(ProfiledDeviceTest, CollectsByLabelAndForgets) {
  const TensorView a = Tensor(DType::kF32, {100});
  for (const int label : {4, 4, -1}) {
    profile_.SetLabel(label);
    profiled_->operations().Fill(*stream_, a, 1);
  }
  const std::vector<OperationTime> times = Collect();
  ASSERT_EQ(times.size(), 2u);
  EXPECT_EQ(times[0].label, -1);
  EXPECT_EQ(times[0].calls, 1);
  EXPECT_EQ(times[1].label, 4);
  EXPECT_EQ(times[1].calls, 2);
  EXPECT_TRUE(Collect().empty());
}

}  // namespace
}  // namespace sluice
