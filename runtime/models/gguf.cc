#include "runtime/models/gguf.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {
namespace {

constexpr char kKnownEncodings[] = "F32, F16, BF16, Q8_0, Q4_0 and Q4_1 are supported";
constexpr int kAxesMax = 4;
// Sizes of any tensor in use are far below; products of two stay in range.
constexpr int64_t kElementsMax = int64_t{1} << 40;

// The types of values, as numbered in files.
enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
  kValueTypes
};

// The types of tensors' elements (ggml_type), as numbered in files; those that aren't supported, for messages.
struct GgmlType {
  uint32_t number;
  absl::string_view name;
  std::optional<Encoding> encoding;
};
constexpr GgmlType kGgmlTypes[] = {{0, "F32", Encoding::kF32},
                                   {1, "F16", Encoding::kF16},
                                   {2, "Q4_0", Encoding::kQ4_0},
                                   {3, "Q4_1", Encoding::kQ4_1},
                                   {8, "Q8_0", Encoding::kQ8_0},
                                   {30, "BF16", Encoding::kBF16},
                                   {6, "Q5_0", {}},
                                   {7, "Q5_1", {}},
                                   {9, "Q8_1", {}},
                                   {10, "Q2_K", {}},
                                   {11, "Q3_K", {}},
                                   {12, "Q4_K", {}},
                                   {13, "Q5_K", {}},
                                   {14, "Q6_K", {}},
                                   {15, "Q8_K", {}},
                                   {24, "I8", {}},
                                   {25, "I16", {}},
                                   {26, "I32", {}},
                                   {27, "I64", {}},
                                   {28, "F64", {}}};

}  // namespace

class GgufParser {
 public:
  explicit GgufParser(absl::string_view bytes) : bytes_(bytes) {}

  absl::StatusOr<Gguf> Parse() {
    ASSIGN_OR_RETURN(const Counts counts, ReadHeader());
    for (int64_t i = 0; i < counts.values; ++i) RETURN_IF_ERROR(ReadPair());
    for (int64_t i = 0; i < counts.tensors; ++i) RETURN_IF_ERROR(ReadTensor());
    RETURN_IF_ERROR(PlaceTensors());
    return std::move(gguf_);
  }

 private:
  struct Counts {
    int64_t tensors, values;
  };

  template <class... Parts>
  absl::Status Wrong(const Parts&... parts) const {
    return absl::InvalidArgumentError(
        absl::StrCat("at byte ", place_, ": ", parts..., "; is this a GGUF file, and whole?"));
  }
  int64_t left() const { return static_cast<int64_t>(bytes_.size()) - place_; }

  template <class T>
  absl::StatusOr<T> Read() {
    if (left() < static_cast<int64_t>(sizeof(T))) return Wrong("the file ends in the middle of a number");
    T value;
    std::memcpy(&value, bytes_.data() + place_, sizeof(T));
    place_ += sizeof(T);
    return value;
  }

  // A number of things of at least `bytes_each` bytes, which must be there.
  absl::StatusOr<int64_t> ReadCount(int64_t bytes_each, absl::string_view of) {
    ASSIGN_OR_RETURN(const auto count, Read<uint64_t>());
    if (count > static_cast<uint64_t>(left() / bytes_each)) {
      return Wrong(count, " ", of, ", but only ", left(), " bytes follow");
    }
    return static_cast<int64_t>(count);
  }

  absl::StatusOr<absl::string_view> ReadText() {
    ASSIGN_OR_RETURN(const int64_t size, ReadCount(1, "bytes of text"));
    const absl::string_view text = bytes_.substr(place_, size);
    place_ += size;
    return text;
  }

  absl::StatusOr<Counts> ReadHeader() {
    if (bytes_.substr(0, 4) != "GGUF") return Wrong("no GGUF file: it doesn't begin with these four letters");
    place_ = 4;
    ASSIGN_OR_RETURN(const auto version, Read<uint32_t>());
    if (version != 2 && version != 3) {
      return absl::UnimplementedError(absl::StrCat("GGUF version ", version,
                                                   (version & 0xffff) == 0 ? " (big-endian)" : "",
                                                   "; 2 and 3, little-endian, are supported"));
    }
    Counts counts{};
    ASSIGN_OR_RETURN(counts.tensors, ReadCount(24, "tensors"));
    ASSIGN_OR_RETURN(counts.values, ReadCount(13, "values"));
    return counts;
  }

  absl::Status ReadPair() {
    ASSIGN_OR_RETURN(const absl::string_view key, ReadText());
    ASSIGN_OR_RETURN(const auto type, Read<uint32_t>());
    auto value = type == kArray ? ReadArray() : ReadValue(type);
    if (!value.ok()) return Annotate(value.status(), absl::StrCat("the value of '", key, "'"));
    if (!gguf_.values_.emplace(key, *std::move(value)).second) return Wrong("a second value of '", key, "'");
    return absl::OkStatus();
  }

  template <class T>
  absl::StatusOr<int64_t> ReadInteger() {
    ASSIGN_OR_RETURN(const T value, Read<T>());
    if (!std::in_range<int64_t>(value)) return Wrong("the integer ", value, " is too large");
    return static_cast<int64_t>(value);
  }

  absl::StatusOr<GgufValue> ReadValue(uint32_t type) {
    switch (type) {
      case kUint8:
        return ReadInteger<uint8_t>();
      case kInt8:
        return ReadInteger<int8_t>();
      case kUint16:
        return ReadInteger<uint16_t>();
      case kInt16:
        return ReadInteger<int16_t>();
      case kUint32:
        return ReadInteger<uint32_t>();
      case kInt32:
        return ReadInteger<int32_t>();
      case kUint64:
        return ReadInteger<uint64_t>();
      case kInt64:
        return ReadInteger<int64_t>();
      case kFloat32: {
        ASSIGN_OR_RETURN(const auto value, Read<float>());
        return GgufValue(double{value});
      }
      case kFloat64:
        return Read<double>();
      case kBool: {
        ASSIGN_OR_RETURN(const auto value, Read<uint8_t>());
        return GgufValue(value != 0);
      }
      case kString:
        return ReadText();
      default:
        return Wrong("values of type ", type, " are not known");
    }
  }

  // Of integers (and bools), reals, or texts.
  absl::StatusOr<GgufValue> ReadArray() {
    constexpr int kBytes[kValueTypes] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};  // of one, at least
    ASSIGN_OR_RETURN(const auto type, Read<uint32_t>());
    if (type >= kValueTypes || type == kArray) return Wrong("arrays of type ", type, " are not known");
    ASSIGN_OR_RETURN(const int64_t count, ReadCount(kBytes[type], "elements of an array"));
    if (type == kString) return ReadElements<absl::string_view>(type, count);
    if (type == kFloat32 || type == kFloat64) return ReadElements<double>(type, count);
    return ReadElements<int64_t>(type, count);
  }

  template <class T>
  absl::StatusOr<GgufValue> ReadElements(uint32_t type, int64_t count) {
    std::vector<T> elements;
    elements.reserve(count);
    for (int64_t i = 0; i < count; ++i) {
      ASSIGN_OR_RETURN(const GgufValue value, ReadValue(type == kBool ? uint32_t{kUint8} : type));
      elements.push_back(std::get<T>(value));
    }
    return GgufValue(std::move(elements));
  }

  absl::StatusOr<Encoding> ReadEncoding() {
    ASSIGN_OR_RETURN(const auto number, Read<uint32_t>());
    for (const GgmlType& type : kGgmlTypes) {
      if (type.number != number) continue;
      if (type.encoding.has_value()) return *type.encoding;
      return absl::UnimplementedError(absl::StrCat("it is stored as ", type.name, "; ", kKnownEncodings));
    }
    return absl::UnimplementedError(absl::StrCat("it is stored as ggml's type ", number, "; ", kKnownEncodings));
  }

  absl::Status ReadTensor() {
    ASSIGN_OR_RETURN(const absl::string_view name, ReadText());
    auto placed = ReadPlace();
    if (!placed.ok()) return Annotate(placed.status(), absl::StrCat("tensor '", name, "'"));
    if (!gguf_.tensors_.try_emplace(name, placed->tensor).second) return Wrong("a second tensor '", name, "'");
    places_.push_back({std::string(name), placed->offset});
    return absl::OkStatus();
  }

  struct Placed {
    GgufTensor tensor;
    uint64_t offset;
  };
  absl::StatusOr<Placed> ReadPlace() {
    Placed placed{};
    ASSIGN_OR_RETURN(const auto axes, Read<uint32_t>());
    if (axes < 1 || axes > kAxesMax) return Wrong("it has ", axes, " axes; 1 to ", kAxesMax, " are possible");
    int64_t elements = 1;
    for (uint32_t axis = 0; axis < axes; ++axis) {
      ASSIGN_OR_RETURN(const auto size, Read<uint64_t>());
      if (size < 1 || size > static_cast<uint64_t>(kElementsMax / elements))
        return Wrong("axis ", axis, " has the size ", size);
      elements *= static_cast<int64_t>(size);
      placed.tensor.shape.insert(placed.tensor.shape.begin(), static_cast<int64_t>(size));
    }
    ASSIGN_OR_RETURN(placed.tensor.encoding, ReadEncoding());
    if (placed.tensor.shape.back() % BlockElements(placed.tensor.encoding) != 0) {
      return Wrong("rows of ", placed.tensor.shape.back(), " elements are no whole blocks of ",
                   Name(placed.tensor.encoding));
    }
    ASSIGN_OR_RETURN(placed.offset, Read<uint64_t>());
    return placed;
  }

  // Behind the tensors' descriptions, aligned, comes their data.
  absl::Status PlaceTensors() {
    const int64_t alignment = gguf_.Integer("general.alignment").value_or(32);
    if (alignment < 1 || alignment > 1 << 20) return Wrong("general.alignment is ", alignment);
    const int64_t padding = (alignment - place_ % alignment) % alignment;
    for (const auto& [name, offset] : places_) {
      GgufTensor& tensor = gguf_.tensors_.at(name);
      int64_t elements = 1;
      for (const int64_t size : tensor.shape) elements *= size;
      const int64_t bytes = StoredBytes(tensor.encoding, elements);
      const int64_t room = left() - padding;
      if (room < bytes || offset > static_cast<uint64_t>(room - bytes)) {
        return Wrong("tensor '", name, "' of ", bytes, " bytes at ", offset, " lies beyond the end of the file");
      }
      tensor.data = reinterpret_cast<const std::byte*>(bytes_.data()) + place_ + padding + offset;
    }
    return absl::OkStatus();
  }

  const absl::string_view bytes_;
  int64_t place_ = 0;
  Gguf gguf_;
  std::vector<std::pair<std::string, uint64_t>> places_;  // of tensors, behind the beginning of the data
};

absl::StatusOr<Gguf> Gguf::Parse(absl::string_view bytes) { return GgufParser(bytes).Parse(); }

std::optional<double> Gguf::Real(absl::string_view key) const {
  if (const auto integer = Integer(key)) return static_cast<double>(*integer);
  return Get<double>(key);
}

}  // namespace sluice
