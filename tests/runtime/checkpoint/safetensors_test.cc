#include "runtime/checkpoint/safetensors.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/checkpoint/floats.h"
#include "runtime/checkpoint/safetensors_writer.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

std::string Path(const std::string& name) {
  const std::string path = testing::TempDir() + "/" + name;
  std::filesystem::remove(path);
  return path;
}

// A file of this header and as many bytes behind it.
std::string FileOf(const std::string& header, size_t data_bytes) {
  std::string file(8, '\0');
  for (int i = 0; i < 8; ++i) file[i] = static_cast<char>(header.size() >> (8 * i));
  return file + header + std::string(data_bytes, 'x');
}

std::string Refusal(const std::string& file) {
  const auto header = ParseSafetensorsHeader(file, static_cast<int64_t>(file.size()));
  EXPECT_FALSE(header.ok());
  return std::string(header.status().message());
}

TEST(Safetensors, ReadsWhatHuggingFacesLibraryWrites) {
  const auto file = SafetensorsFile::Open("tests/golden/safetensors/small.safetensors");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors().size(), 8u);
  EXPECT_EQ(file->metadata().at("made by"), "make.py");
  const std::pair<const char*, std::vector<int64_t>> floats[] = {{"h.0.attn.c_attn.weight", {5, 3}},
                                                                 {"h.0.attn.c_attn.bias", {3}},
                                                                 {"lm_head.weight", {2, 9}},
                                                                 {"empty", {0, 4}},
                                                                 {"scalar", {}}};
  for (const auto& [name, shape] : floats) {
    const StoredTensor* const tensor = file->Find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(tensor->shape, shape);
    std::vector<float> values(tensor->elements());
    ASSERT_TRUE(ReadFloats(*tensor, 0, absl::MakeSpan(values)).ok());
    for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], (static_cast<float>(i) - 3) / 4) << name;
  }
  const StoredTensor* const ids = file->Find("ids");
  ASSERT_NE(ids, nullptr);
  EXPECT_EQ(ids->type, StoredType::kI64);
  int64_t last;
  std::memcpy(&last, ids->bytes.data() + 48, 8);
  EXPECT_EQ(last, 6);
  EXPECT_NE(file->Find("näme \"quoted\""), nullptr);
  EXPECT_EQ(file->Find("none"), nullptr);
  std::vector<float> wrong(7);
  EXPECT_THAT(std::string(ReadFloats(*ids, 0, absl::MakeSpan(wrong)).message()), HasSubstr("I64"));
}

TEST(Safetensors, ReadsPartsOfATensor) {
  const auto file = SafetensorsFile::Open("tests/golden/safetensors/small.safetensors");
  ASSERT_TRUE(file.ok());
  std::vector<float> part(4);
  ASSERT_TRUE(ReadFloats(*file->Find("lm_head.weight"), 7, absl::MakeSpan(part)).ok());
  EXPECT_EQ(part, (std::vector<float>{1, 1.25, 1.5, 1.75}));
}

// Any names, types, shapes and parts come back, and the checksums are those of the bytes.
TEST(Safetensors, ReadsWhatItWrites) {
  for (int seed = 0; seed < 40; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](int n) { return static_cast<int>(random() % n); };
    std::vector<TensorHeader> tensors;
    std::string bytes;
    for (int i = below(6); i >= 0; --i) {
      TensorHeader tensor{.name = absl::StrCat(i, seed % 3 == 0 ? "\"ä\n" : ".weight"),
                          .type = static_cast<StoredType>(below(15))};
      for (int axis = below(4); axis > 0; --axis) tensor.shape.push_back(below(seed % 5 == 0 ? 90 : 5));
      int64_t size = BytesOf(tensor.type);
      for (const int64_t n : tensor.shape) size *= n;
      for (int64_t n = 0; n < size; ++n) bytes.push_back(static_cast<char>(random()));
      tensors.push_back(tensor);
    }
    const std::string path = Path("round.safetensors");
    auto writer = SafetensorsWriter::Create(path, tensors, {{"a", "b"}});
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (size_t done = 0; done < bytes.size();) {
      const size_t part = std::min<size_t>(bytes.size() - done, 1 + random() % 5000);
      ASSERT_TRUE((*writer)->Add({reinterpret_cast<const std::byte*>(bytes.data() + done), part}).ok());
      done += part;
    }
    const auto written = (*writer)->Finish();
    ASSERT_TRUE(written.ok()) << written.status();

    const auto file = SafetensorsFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->bytes(), written->bytes);
    EXPECT_EQ(file->header().size() % 8, 0u);
    EXPECT_EQ(ChecksumOf(file->header()), written->header_checksum);
    EXPECT_EQ(file->metadata().at("a"), "b");
    size_t begin = 0;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const StoredTensor* const tensor = file->Find(tensors[i].name);
      ASSERT_NE(tensor, nullptr);
      EXPECT_EQ(tensor->type, tensors[i].type);
      EXPECT_EQ(tensor->shape, tensors[i].shape);
      EXPECT_EQ(std::memcmp(tensor->bytes.data(), bytes.data() + begin, tensor->bytes.size()), 0);
      EXPECT_EQ(ChecksumOf(tensor->bytes), written->tensor_checksums[i]);
      begin += tensor->bytes.size();
    }
    EXPECT_EQ(begin, bytes.size());
  }
}

TEST(Safetensors, RefusesWhatCantBe) {
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  ASSERT_TRUE(ParseSafetensorsHeader(FileOf(good, 8), static_cast<int64_t>(FileOf(good, 8).size())).ok());
  EXPECT_THAT(Refusal(""), HasSubstr("fewer than 8 bytes"));
  EXPECT_THAT(Refusal("1234567"), HasSubstr("fewer than 8 bytes"));
  EXPECT_THAT(Refusal(std::string(8, '\xff')), HasSubstr("more than 100000000"));
  EXPECT_THAT(Refusal(FileOf(good, 8).substr(0, 30)), HasSubstr("was it cut off?"));
  EXPECT_THAT(Refusal(FileOf(good, 7)), HasSubstr("\"a\" ends at byte 8, but the file has only 7"));
  EXPECT_THAT(Refusal(FileOf(good, 9)), HasSubstr("1 bytes at its end belong to no tensor"));
  const std::pair<const char*, const char*> cases[] = {
      {"", "does not begin"},
      {" {}", "does not begin"},
      {"[]", "does not begin"},
      {"{", "no JSON"},
      {"{}}", "no JSON"},
      {R"({"a":1})", "\"a\" is no object"},
      {R"({"a":[]})", "a list where"},
      {R"({"a":{}})", "lacks a dtype"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", "lacks a dtype"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", "lacks a dtype"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}})", "lacks a dtype"},
      {R"({"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}})", "\"a\" is of a type that is not known: \"F33\""},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", "[3] and type F32 does not have the bytes 0 to 8"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", "does not have the bytes 8 to 0"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8.0]}})", "strange or second"},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "strange or second"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", "strange or second \"x\""},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "strange or second \"dtype\""},
      {R"({"a":{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}})", "strange or second \"shape\""},
      {R"({"a":{"dtype":"F32","shape":{},"data_offsets":[0,8]}})", "an object where"},
      {R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", "a list where"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9223372036854775808]}})", "more than any file has"},
      // 2^62 x 4 elements of 4 bytes would be 0 bytes in 64 bits.
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", "does not have the bytes"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
       "\"a\" is there twice"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})",
       "\"b\" begins at byte 3 and not at 4"},
      {R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
       "\"b\" begins at byte 4 and not at 3"},
      {R"({"__metadata__":{"a":1}})", "\"a\", which is no text"},
      {R"({"__metadata__":{"a":"1","a":"2"}})", "twice"},
      {R"({"__metadata__":"a"})", "is no object"},
      {"{\"\xff\":1}", "no JSON"},
  };
  for (const auto& [header, words] : cases) EXPECT_THAT(Refusal(FileOf(header, 8)), HasSubstr(words)) << header;
  // Nothing that is deep takes a stack.
  EXPECT_THAT(Refusal(FileOf("{\"a\":" + std::string(1000000, '['), 8)), HasSubstr("a list where"));
}

TEST(Safetensors, AFileWithoutTensorsAndOneOfEmptyOnesAreWhole) {
  const std::string empty = R"({"b":{"dtype":"F32","shape":[9223372036854775807,0,7],"data_offsets":[0,0]}})";
  for (const std::string& header : {std::string("{}"), empty}) {
    const std::string file = FileOf(header, 0);
    EXPECT_TRUE(ParseSafetensorsHeader(file, static_cast<int64_t>(file.size())).ok()) << header;
  }
}

TEST(Safetensors, AWriterKnowsWhenBytesAreMissingOrTooMany) {
  const std::vector<TensorHeader> tensors = {{.name = "a", .shape = {2}}, {.name = "b", .shape = {1}}};
  const std::vector<float> values = {1, 2, 3, 4};
  auto writer = SafetensorsWriter::Create(Path("a.safetensors"), tensors);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->Add(absl::MakeConstSpan(values).first(2)).ok());
  EXPECT_THAT(std::string((*writer)->Finish().status().message()), HasSubstr("\"b\" has not all of its bytes"));
  writer = SafetensorsWriter::Create(Path("b.safetensors"), tensors);
  ASSERT_TRUE(writer.ok());
  EXPECT_FALSE((*writer)->Add(values).ok());
  EXPECT_FALSE(SafetensorsWriter::Create(Path("c.safetensors"), {{.name = "a"}, {.name = "a"}}).ok());
  EXPECT_FALSE(SafetensorsWriter::Create(Path("c.safetensors"), {{.name = "a", .shape = {-1}}}).ok());
  EXPECT_FALSE(SafetensorsWriter::Create(Path("c.safetensors"), {{.name = "__metadata__"}}).ok());
}

// By way of the definition: sign, exponent and fraction, in double precision.
TEST(Floats, EveryF16AndBF16IsExact) {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> f16(halves.size()), bf16(halves.size());
  F16ToF32(reinterpret_cast<const std::byte*>(halves.data()), 65536, f16.data());
  BF16ToF32(reinterpret_cast<const std::byte*>(halves.data()), 65536, bf16.data());
  const auto defined = [](uint32_t bits, int exponent_bits, int fraction_bits) {
    const int bias = (1 << (exponent_bits - 1)) - 1, exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1);
    const double fraction = std::ldexp(bits & ((1 << fraction_bits) - 1), -fraction_bits);
    const double sign = bits >> 15 != 0 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) return sign * (fraction == 0 ? INFINITY : NAN);
    return sign * (exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias));
  };
  for (uint32_t i = 0; i < 65536; ++i) {
    const double want_f16 = defined(i, 5, 10), want_bf16 = defined(i, 8, 7);
    if (std::isnan(want_f16)) {
      EXPECT_TRUE(std::isnan(f16[i]));
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(f16[i]), std::bit_cast<uint32_t>(static_cast<float>(want_f16))) << i;
    }
    if (std::isnan(want_bf16)) {
      EXPECT_TRUE(std::isnan(bf16[i]));
    } else {
      EXPECT_EQ(std::bit_cast<uint32_t>(bf16[i]), std::bit_cast<uint32_t>(static_cast<float>(want_bf16))) << i;
    }
  }
}

}  // namespace
}  // namespace sluice
