// libFuzzer target: the safetensors header against any bytes. Its first four bytes say how many bytes of tensors
// follow; with an odd one the rest is the file as it stands, else the header's JSON.
#include <cstdint>
#include <cstring>
#include <string>

#include "base/check.h"
#include "runtime/checkpoint/safetensors_header.h"

namespace sluice {
namespace {

std::string WithLength(absl::string_view json) {
  std::string file(8, '\0');
  for (int i = 0; i < 8; ++i) file[i] = static_cast<char>(json.size() >> (8 * i));
  return file.append(json.data(), json.size());
}

// What was accepted lies within the file, without a hole, and can be written and read again.
void CheckAccepted(SafetensorsHeader header, int64_t file_bytes) {
  int64_t end = header.bytes;
  for (const TensorHeader& tensor : header.tensors) {
    CHECK_EQ(tensor.begin + header.bytes, end);
    CHECK_GE(tensor.bytes, 0);
    int64_t bytes = BytesOf(tensor.type);
    for (const int64_t size : tensor.shape) bytes = size == 0 || bytes == 0 ? 0 : bytes * size;
    CHECK_EQ(tensor.bytes, bytes);
    end += tensor.bytes;
  }
  CHECK_EQ(end, file_bytes);
  const int64_t data_bytes = file_bytes - header.bytes;
  const auto text = FormatSafetensorsHeader(&header);
  CHECK_OK(text.status());
  const auto again = ParseSafetensorsHeader(*text, static_cast<int64_t>(text->size()) + data_bytes);
  CHECK_OK(again.status());
  CHECK(*again == header);
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  uint32_t data_bytes;
  if (size < sizeof(data_bytes)) return 0;
  std::memcpy(&data_bytes, data, sizeof(data_bytes));
  const absl::string_view rest(reinterpret_cast<const char*>(data) + 4, size - 4);
  const std::string file = data_bytes % 2 == 1 ? std::string(rest) : sluice::WithLength(rest);
  const int64_t file_bytes = static_cast<int64_t>(file.size()) + data_bytes / 2;
  const auto header = sluice::ParseSafetensorsHeader(file, file_bytes);
  if (header.ok()) sluice::CheckAccepted(*header, file_bytes);
  return 0;
}
