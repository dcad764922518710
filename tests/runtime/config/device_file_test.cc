// Devices as text: those that are shipped say what they are, and what is wrong is said with its place.
#include "runtime/config/device_file.h"

#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsSupersetOf;

constexpr char kDevice[] = R"(name: "a box"
tflops_bf16: 100
tflops_f32: 10
product_share: 0.5
memory_mib: 2048
reserved_mib: 48
memory_gbytes_per_second: 1000
memory_share: 0.9
launch_us: 2
peer { gbytes_per_second: 50 latency_us: 3 }
)";

TEST(DeviceFile, EveryShippedDeviceIsReadAndNamesItsSources) {
  EXPECT_THAT(ShippedDevices(), IsSupersetOf({"a100", "b200", "h100", "h200", "l40s", "rtx4090"}));
  for (const std::string& name : ShippedDevices()) {
    const auto device = FindDevice(name, ".");
    ASSERT_TRUE(device.ok()) << device.status();
    EXPECT_THAT(device->name, HasSubstr("NVIDIA"));
    EXPECT_GT(device->peak_flops_bf16, device->flops_bf16) << "what is reached is less than the data sheet's";
    EXPECT_GT(device->flops_bf16, 1e13);
    EXPECT_GT(device->bytes_per_second, 5e11);
    EXPECT_GT(device->memory_bytes, int64_t{20} << 30);
    EXPECT_LE(device->network.bytes_per_second, device->peer.bytes_per_second) << name;
  }
}

TEST(DeviceFile, NumbersGetTheUnitsOfTheProgram) {
  const auto device = DeviceFromText(kDevice, "box");
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_DOUBLE_EQ(device->flops_bf16, 50e12);
  EXPECT_DOUBLE_EQ(device->peak_flops_f32, 10e12);
  EXPECT_DOUBLE_EQ(device->bytes_per_second, 900e9);
  EXPECT_EQ(device->memory_bytes, int64_t{2048} << 20);
  EXPECT_EQ(device->launch_ns, 2000);
  EXPECT_EQ(device->peer, (LinkDescription{50e9, 3000}));
  EXPECT_EQ(device->network, device->peer) << "one line for all that isn't said";
}

TEST(DeviceFile, NamesAreReadAsPeopleWriteThem) {
  for (const char* name : {"H100", "h100", "H 100"}) EXPECT_TRUE(FindDevice(name, ".").ok()) << name;
  EXPECT_EQ(FindDevice("RTX 4090", ".")->name, FindDevice("rtx4090", ".")->name);
  EXPECT_EQ(FindDevice("A100-40GB", ".")->memory_bytes, int64_t{40960} << 20);
}

TEST(DeviceFile, GpusAreFoundByTheNamesThatCudaGivesThem) {
  EXPECT_EQ(FindDeviceOfGpu("NVIDIA H100 80GB HBM3")->name, FindDevice("h100", ".")->name);
  EXPECT_EQ(FindDeviceOfGpu("NVIDIA A100-SXM4-40GB")->name, FindDevice("a100-40gb", ".")->name);
  EXPECT_EQ(FindDeviceOfGpu("NVIDIA GeForce RTX 4090")->name, FindDevice("rtx4090", ".")->name);
  EXPECT_EQ(FindDeviceOfGpu("Simulated").status().code(), absl::StatusCode::kNotFound);
}

TEST(DeviceFile, FilesOfOnesOwnAreRelativeToTheUser) {
  std::ofstream(testing::TempDir() + "/box.textproto") << kDevice;
  EXPECT_EQ(FindDevice("box.textproto", testing::TempDir())->name, "a box");
  EXPECT_FALSE(FindDevice("none.textproto", testing::TempDir()).ok());
}

TEST(DeviceFile, UnknownNamesListWhatThereIs) {
  const absl::Status status = FindDevice("H101", ".").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("'H101'"), HasSubstr("did you mean h100"), HasSubstr("a100, "), HasSubstr("rtx4090")));
}

TEST(DeviceFile, WhatIsWrongIsNamedWithItsLine) {
  const auto error = [](const char* more) {
    return std::string(DeviceFromText(absl::StrCat(kDevice, more), "box.textproto").status().message());
  };
  EXPECT_THAT(error("speed: 1\n"), HasSubstr("box.textproto:11"));
  EXPECT_THAT(error("network { gbytes_per_second: -1 }\n"), AllOf(HasSubstr("box.textproto:11"), HasSubstr("-1")));
  EXPECT_THAT(error("format_version: 2\n"), HasSubstr("version 1"));
  EXPECT_THAT(error("devices_per_host: -8\n"), HasSubstr("devices_per_host"));
  EXPECT_THAT(std::string(DeviceFromText("name: \"x\"", "f").status().message()), HasSubstr("tflops_f32"));
}

TEST(Devices, HowManyOfWhich) {
  for (const char* text : {"8x H100", "8xH100", " 8 x H100 "}) {
    const auto choice = ParseDevices(text);
    ASSERT_TRUE(choice.ok()) << choice.status();
    EXPECT_EQ(choice->count, 8);
    EXPECT_EQ(choice->device, "H100");
  }
  EXPECT_EQ(ParseDevices("H100")->count, 0);
  EXPECT_EQ(ParseDevices("2x my/box.textproto")->device, "my/box.textproto");
  for (const char* text : {"", "0x H100", "8x", "9999999999x H100", "-1x "}) {
    const auto choice = ParseDevices(text);
    EXPECT_TRUE(!choice.ok() || choice->count == 0) << text;
  }
}

}  // namespace
}  // namespace sluice
