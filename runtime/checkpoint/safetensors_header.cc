#include "runtime/checkpoint/safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "nlohmann/json.hpp"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
constexpr char kMetadata[] = "__metadata__";

struct TypeFacts {
  StoredType type;
  const char* name;
  int64_t bytes;
};
constexpr std::array<TypeFacts, 15> kTypes = {{{StoredType::kBool, "BOOL", 1},
                                               {StoredType::kU8, "U8", 1},
                                               {StoredType::kI8, "I8", 1},
                                               {StoredType::kF8E4M3, "F8_E4M3", 1},
                                               {StoredType::kF8E5M2, "F8_E5M2", 1},
                                               {StoredType::kI16, "I16", 2},
                                               {StoredType::kU16, "U16", 2},
                                               {StoredType::kF16, "F16", 2},
                                               {StoredType::kBF16, "BF16", 2},
                                               {StoredType::kI32, "I32", 4},
                                               {StoredType::kU32, "U32", 4},
                                               {StoredType::kF32, "F32", 4},
                                               {StoredType::kI64, "I64", 8},
                                               {StoredType::kU64, "U64", 8},
                                               {StoredType::kF64, "F64", 8}}};

std::optional<StoredType> TypeNamed(absl::string_view name) {
  for (const TypeFacts& facts : kTypes) {
    if (name == facts.name) return facts.type;
  }
  return std::nullopt;
}

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("not a whole safetensors file: ", what));
}
absl::Status Malformed(absl::string_view tensor, absl::string_view what) {
  return Malformed(absl::StrCat("tensor \"", tensor, "\" ", what));
}

// Bytes of a tensor; nothing if they are more than fit.
std::optional<int64_t> BytesOf(StoredType type, const std::vector<int64_t>& shape) {
  int64_t bytes = BytesOf(type);
  // An axis of size 0 leaves nothing, however large the others are.
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  for (const int64_t size : shape) {
    if (size < 0 || size > kMost / bytes) return std::nullopt;
    bytes *= size;
  }
  return bytes;
}

// Takes the JSON piece by piece, so that no tree of it is built, and a name that comes twice is seen.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  struct Tensor {
    std::string name;
    std::optional<StoredType> type;
    std::optional<std::vector<int64_t>> shape;
    std::vector<int64_t> offsets;  // where its bytes begin and end
  };
  std::vector<Tensor>& tensors() { return tensors_; }
  std::map<std::string, std::string>& metadata() { return metadata_; }
  const std::string& error() const { return error_; }

  bool start_object(size_t) override {
    if (place_ == Place::kStart) return Go(Place::kHeader);
    if (place_ != Place::kHeader) return Fail("an object where there can be none");
    if (key_ == kMetadata) return Go(Place::kMetadata);
    tensors_.push_back({.name = key_});
    return Go(Place::kTensor);
  }
  bool end_object() override { return Go(place_ == Place::kHeader ? Place::kEnd : Place::kHeader); }
  bool key(std::string& name) override {
    key_ = name;
    if (place_ == Place::kHeader && !names_.insert(name).second)
      return Fail(absl::StrCat("\"", name, "\" is there twice"));
    if (place_ == Place::kMetadata && metadata_.contains(name)) {
      return Fail(absl::StrCat(kMetadata, " has \"", name, "\" twice"));
    }
    return true;
  }
  bool start_array(size_t) override {
    if (place_ != Place::kTensor) return Fail("a list where there can be none");
    if (key_ == "shape" && !tensors_.back().shape.has_value()) {
      tensors_.back().shape.emplace();
      return Go(Place::kShape);
    }
    if (key_ == "data_offsets" && tensors_.back().offsets.empty()) return Go(Place::kOffsets);
    return Unexpected();
  }
  bool end_array() override { return Go(Place::kTensor); }
  bool string(std::string& text) override {
    if (place_ == Place::kMetadata) return metadata_.emplace(key_, text).second;
    if (place_ != Place::kTensor || key_ != "dtype" || tensors_.back().type.has_value()) return Unexpected();
    tensors_.back().type = TypeNamed(text);
    return tensors_.back().type.has_value() ||
           Fail(absl::StrCat("tensor \"", tensors_.back().name, "\" is of a type that is not known: \"", text, "\""));
  }
  bool number_unsigned(uint64_t number) override {
    if (number > static_cast<uint64_t>(kMost)) return Fail(absl::StrCat(number, " is more than any file has"));
    if (place_ == Place::kShape) return Append(&*tensors_.back().shape, number);
    if (place_ == Place::kOffsets) return Append(&tensors_.back().offsets, number);
    return Unexpected();
  }
  bool number_integer(int64_t) override { return Unexpected(); }
  bool number_float(double, const std::string&) override { return Unexpected(); }
  bool null() override { return Unexpected(); }
  bool boolean(bool) override { return Unexpected(); }
  bool binary(binary_t&) override { return Unexpected(); }
  bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("its header is no JSON at byte ", at));
  }

 private:
  enum class Place : uint8_t { kStart, kHeader, kMetadata, kTensor, kShape, kOffsets, kEnd };

  bool Go(Place place) {
    place_ = place;
    return true;
  }
  bool Fail(std::string error) {
    if (error_.empty()) error_ = std::move(error);
    return false;
  }
  bool Unexpected() {
    if (place_ == Place::kStart) return Fail("its header is no JSON object");
    if (place_ == Place::kHeader) return Fail(absl::StrCat("\"", key_, "\" is no object"));
    if (place_ == Place::kMetadata) return Fail(absl::StrCat(kMetadata, " has \"", key_, "\", which is no text"));
    return Fail(absl::StrCat("tensor \"", tensors_.back().name, "\" has a strange or second \"", key_, "\""));
  }
  static bool Append(std::vector<int64_t>* list, uint64_t number) {
    list->push_back(static_cast<int64_t>(number));
    return true;
  }

  Place place_ = Place::kStart;
  std::string key_, error_;
  absl::flat_hash_set<std::string> names_;
  std::vector<Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

// What JSON says of a tensor, checked by itself.
absl::StatusOr<TensorHeader> Checked(HeaderReader::Tensor tensor) {
  if (!tensor.type.has_value() || !tensor.shape.has_value() || tensor.offsets.size() != 2) {
    return Malformed(tensor.name, "lacks a dtype, a shape or two data_offsets");
  }
  const auto [begin, end] = std::pair(tensor.offsets[0], tensor.offsets[1]);
  const std::optional<int64_t> bytes = BytesOf(*tensor.type, *tensor.shape);
  if (end < begin || bytes != end - begin) {
    return Malformed(tensor.name, absl::StrCat("of shape [", absl::StrJoin(*tensor.shape, ", "), "] and type ",
                                               Name(*tensor.type), " does not have the bytes ", begin, " to ", end));
  }
  return TensorHeader{std::move(tensor.name), *tensor.type, *std::move(tensor.shape), begin, *bytes};
}

absl::Status CheckOrder(const std::vector<TensorHeader>& tensors, int64_t data_bytes) {
  int64_t end = 0;
  for (const TensorHeader& tensor : tensors) {
    if (tensor.begin != end) {
      return Malformed(tensor.name, absl::StrCat("begins at byte ", tensor.begin, " and not at ", end,
                                                 ", where the one before it ends"));
    }
    if (tensor.bytes > data_bytes - end) {
      return Malformed(tensor.name, absl::StrCat("ends at byte ", end + tensor.bytes, ", but the file has only ",
                                                 data_bytes, " bytes of tensors: was it cut off?"));
    }
    end += tensor.bytes;
  }
  if (end == data_bytes) return absl::OkStatus();
  return Malformed(absl::StrCat(data_bytes - end, " bytes at its end belong to no tensor"));
}

// The JSON of the header, whose bounds have been checked.
absl::StatusOr<absl::string_view> HeaderText(absl::string_view file, int64_t file_bytes) {
  if (file_bytes < kLengthBytes || file.size() < kLengthBytes) return Malformed("it has fewer than 8 bytes");
  uint64_t length = 0;
  for (int i = kLengthBytes - 1; i >= 0; --i) length = length << 8 | static_cast<uint8_t>(file[i]);
  if (length > kSafetensorsHeaderBytesMax) {
    return Malformed(absl::StrCat("its header would have ", length, " bytes, more than ", kSafetensorsHeaderBytesMax));
  }
  if (length > static_cast<uint64_t>(file_bytes) - kLengthBytes || length > file.size() - kLengthBytes) {
    return Malformed(absl::StrCat("its header has ", length, " bytes, the file ", file_bytes, ": was it cut off?"));
  }
  const absl::string_view text = file.substr(kLengthBytes, length);
  if (text.empty() || text[0] != '{') return Malformed("its header does not begin with '{'");
  return text;
}

}  // namespace

absl::string_view Name(StoredType type) { return kTypes[static_cast<size_t>(type)].name; }

int64_t BytesOf(StoredType type) { return kTypes[static_cast<size_t>(type)].bytes; }

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view file, int64_t file_bytes) {
  ASSIGN_OR_RETURN(const absl::string_view text, HeaderText(file, file_bytes));
  HeaderReader reader;
  if (!Json::sax_parse(text.begin(), text.end(), &reader)) return Malformed(reader.error());
  SafetensorsHeader header{.metadata = std::move(reader.metadata()),
                           .bytes = kLengthBytes + static_cast<int64_t>(text.size())};
  for (HeaderReader::Tensor& tensor : reader.tensors()) {
    ASSIGN_OR_RETURN(TensorHeader checked, Checked(std::move(tensor)));
    header.tensors.push_back(std::move(checked));
  }
  // Those without bytes stand before the one that begins where they are.
  std::stable_sort(header.tensors.begin(), header.tensors.end(), [](const TensorHeader& a, const TensorHeader& b) {
    return std::tie(a.begin, a.bytes) < std::tie(b.begin, b.bytes);
  });
  RETURN_IF_ERROR(CheckOrder(header.tensors, file_bytes - header.bytes));
  return header;
}

absl::StatusOr<std::string> FormatSafetensorsHeader(SafetensorsHeader* header) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!header->metadata.empty()) json[kMetadata] = header->metadata;
  absl::flat_hash_set<absl::string_view> names = {kMetadata};
  int64_t end = 0;
  for (TensorHeader& tensor : header->tensors) {
    const std::optional<int64_t> bytes = BytesOf(tensor.type, tensor.shape);
    if (!bytes.has_value() || *bytes > kMost - end) return Malformed(tensor.name, "has a size that can't be");
    if (!names.insert(tensor.name).second) return Malformed(tensor.name, "is there twice");
    tensor.begin = end;
    tensor.bytes = *bytes;
    end += *bytes;
    json.emplace(tensor.name,
                 nlohmann::ordered_json{
                     {"dtype", Name(tensor.type)}, {"shape", tensor.shape}, {"data_offsets", {tensor.begin, end}}});
  }
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace);
  text.append((kLengthBytes - text.size() % kLengthBytes) % kLengthBytes, ' ');
  if (static_cast<int64_t>(text.size()) > kSafetensorsHeaderBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("a safetensors header of ", text.size(), " bytes is too large"));
  }
  header->bytes = kLengthBytes + static_cast<int64_t>(text.size());
  std::string length(kLengthBytes, '\0');
  for (int i = 0; i < kLengthBytes; ++i) length[i] = static_cast<char>(text.size() >> (8 * i));
  return length + text;
}

}  // namespace sluice
