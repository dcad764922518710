// A GGUF file's content: typed key-value metadata, and tensors by name (ggml's file format, versions 2 and 3).
//
// Everything is checked before it is used: every length against what is left of the file, every tensor's place against
// its end. What is read are views into the bytes, which outlive it; nothing is taken of a size that the file only
// claims. Threads: immutable once parsed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/models/encoding.h"

namespace sluice {

// Integers of any width and sign are int64_t (those above 2^63 - 1 are refused), both widths of reals double.
using GgufValue = std::variant<int64_t, double, bool, absl::string_view, std::vector<int64_t>, std::vector<double>,
                               std::vector<absl::string_view>>;

struct GgufTensor {
  std::vector<int64_t> shape;  // the outermost first, as everywhere but in GGUF itself; 1 to 4 axes, none of them empty
  Encoding encoding = Encoding::kF32;
  const std::byte* data = nullptr;
};

class Gguf {
 public:
  // INVALID_ARGUMENT: what is wrong, and where in the file. UNIMPLEMENTED: a version, or the encoding of a tensor, with
  // those that are supported.
  static absl::StatusOr<Gguf> Parse(absl::string_view bytes);

  // Of the key, if it is there and of this type.
  std::optional<int64_t> Integer(absl::string_view key) const { return Get<int64_t>(key); }
  std::optional<double> Real(absl::string_view key) const;  // integers too
  std::optional<bool> Flag(absl::string_view key) const { return Get<bool>(key); }
  std::optional<absl::string_view> Text(absl::string_view key) const { return Get<absl::string_view>(key); }
  // Null: not there, or of another type.
  const std::vector<absl::string_view>* Texts(absl::string_view key) const {
    return Find<std::vector<absl::string_view>>(key);
  }
  const std::vector<int64_t>* Integers(absl::string_view key) const { return Find<std::vector<int64_t>>(key); }

  const absl::flat_hash_map<std::string, GgufTensor>& tensors() const { return tensors_; }

 private:
  template <class T>
  const T* Find(absl::string_view key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : std::get_if<T>(&found->second);
  }
  template <class T>
  std::optional<T> Get(absl::string_view key) const {
    const T* const value = Find<T>(key);
    return value == nullptr ? std::nullopt : std::optional<T>(*value);
  }
  friend class GgufParser;
  absl::flat_hash_map<std::string, GgufValue> values_;
  absl::flat_hash_map<std::string, GgufTensor> tensors_;
};

}  // namespace sluice
