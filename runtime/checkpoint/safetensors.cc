#include "runtime/checkpoint/safetensors.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/checkpoint/floats.h"

namespace sluice {

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::string& path) {
  SafetensorsFile file;
  ASSIGN_OR_RETURN(file.file_, MappedFile::Open(path));
  auto header = ParseSafetensorsHeader(file.file_.text(), file.bytes());
  if (!header.ok()) return Annotate(header.status(), path);
  file.header_bytes_ = header->bytes;
  file.metadata_ = std::move(header->metadata);
  const std::byte* const data = file.file_.data() + header->bytes;
  for (TensorHeader& tensor : header->tensors) {
    file.index_.emplace(tensor.name, file.tensors_.size());
    file.tensors_.push_back({.name = std::move(tensor.name),
                             .type = tensor.type,
                             .shape = std::move(tensor.shape),
                             .bytes = {data + tensor.begin, static_cast<size_t>(tensor.bytes)}});
  }
  return file;
}

const StoredTensor* SafetensorsFile::Find(absl::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

absl::Status ReadFloats(const StoredTensor& tensor, int64_t begin, absl::Span<float> out) {
  const auto count = static_cast<int64_t>(out.size());
  CHECK(begin >= 0 && count <= tensor.elements() - begin) << tensor.name << ": " << begin << ", " << count;
  const std::byte* const from = tensor.bytes.data() + begin * BytesOf(tensor.type);
  switch (tensor.type) {
    case StoredType::kF32:
      if (count > 0) std::memcpy(out.data(), from, 4 * out.size());
      return absl::OkStatus();
    case StoredType::kF16:
      F16ToF32(from, count, out.data());
      return absl::OkStatus();
    case StoredType::kBF16:
      BF16ToF32(from, count, out.data());
      return absl::OkStatus();
    default:
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name, "\" is of type ", Name(tensor.type),
                                                     "; what can be read as parameters is F32, F16 and BF16"));
  }
}

}  // namespace sluice
