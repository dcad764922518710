#include "proto/text.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/tokenizer.h"

namespace sluice {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::TextFormat;

// Number of inserted, deleted and replaced letters between two words.
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

const Descriptor* FindMessage(const Descriptor& root, const std::string& full_name) {
  if (root.full_name() == full_name) return &root;
  for (int i = 0; i < root.field_count(); ++i) {
    if (const Descriptor* child = root.field(i)->message_type(); child != nullptr) {
      if (const Descriptor* found = FindMessage(*child, full_name); found != nullptr) return found;
    }
  }
  return nullptr;
}

// The library's `Message type "x.Y" has no field named "z".` with the field that may have been meant.
std::string WithNearestField(const Descriptor& root, const std::string& message) {
  const std::vector<std::string> parts = absl::StrSplit(message, '"');
  if (parts.size() != 5 || parts[2] != " has no field named ") return message;
  const Descriptor* descriptor = FindMessage(root, parts[1]);
  if (descriptor == nullptr) return message;
  const std::string nearest = NearestField(*descriptor, parts[3]);
  return absl::StrCat("unknown field \"", parts[3], "\" in ", descriptor->name(),
                      nearest.empty() ? "" : absl::StrCat("; did you mean \"", nearest, "\"?"));
}

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, google::protobuf::io::ColumnNumber column, const std::string& message) override {
    if (!message_.empty()) return;
    line_ = line;
    column_ = column;
    message_ = message;
  }
  std::string ToString(absl::string_view file, const Descriptor& root) const {
    return absl::StrCat(file, ":", line_ + 1, ":", column_ + 1, ": ", WithNearestField(root, message_));
  }

 private:
  int line_ = 0, column_ = 0;
  std::string message_;
};

absl::Status BadOverride(absl::string_view assignment, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("--set ", assignment, ": ", why));
}

// Parses `value` as the text form of one element of `field` into `message`.
bool ParseValue(absl::string_view value, const FieldDescriptor& field, google::protobuf::Message& message,
                std::string& error) {
  FirstError errors;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  const std::string text = absl::StrCat(field.name(), field.type() == FieldDescriptor::TYPE_MESSAGE ? " " : ": ",
                                        absl::string_view(value.data(), value.size()));
  if (parser.MergeFromString(text, &message)) return true;
  error = absl::StrCat("\"", value, "\" is no value for ", field.name(), " (", field.cpp_type_name(), ")");
  if (field.enum_type() != nullptr) {
    absl::StrAppend(&error, "; known:");
    for (int i = 0; i < field.enum_type()->value_count(); ++i) {
      absl::StrAppend(&error, " ", field.enum_type()->value(i)->name());
    }
  }
  return false;
}

absl::Status SetScalar(absl::string_view assignment, const FieldDescriptor& field, absl::string_view value,
                       google::protobuf::Message& message) {
  const auto* reflection = message.GetReflection();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    reflection->SetString(&message, &field, std::string(value));
    return absl::OkStatus();
  }
  reflection->ClearField(&message, &field);
  std::string error;
  return ParseValue(value, field, message, error) ? absl::OkStatus() : BadOverride(assignment, error);
}

// All elements at once ("[...]" or a single one), or element `index`.
absl::Status SetRepeated(absl::string_view assignment, const FieldDescriptor& field, int index, absl::string_view value,
                         google::protobuf::Message& message) {
  const auto* reflection = message.GetReflection();
  const int size = reflection->FieldSize(message, &field);
  if (index > size) {
    return BadOverride(assignment, absl::StrCat(field.name(), " has ", size, " elements; index ", size, " appends"));
  }
  if (index < 0) reflection->ClearField(&message, &field);
  const bool list = index < 0 && !value.empty() && value.front() == '[';
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING && !list) {
    reflection->AddString(&message, &field, std::string(value));
  } else if (std::string error; !ParseValue(value, field, message, error)) {
    return BadOverride(assignment, error);
  }
  if (index >= 0 && index < size) {  // the new element stands at the end: put it in its place
    reflection->SwapElements(&message, &field, index, size);
    reflection->RemoveLast(&message, &field);
  }
  return absl::OkStatus();
}

}  // namespace

std::string NearestName(const std::vector<std::string>& names, absl::string_view name) {
  std::string best;
  size_t best_distance = std::max<size_t>(name.size() / 2, 1) + 1;
  for (const std::string& candidate : names) {
    // A word that contains the other, or starts alike, counts as near.
    size_t distance = EditDistance(name, candidate);
    if (name.size() >= 3 && absl::string_view(candidate).find(name) != absl::string_view::npos) distance = 1;
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string NearestField(const Descriptor& descriptor, absl::string_view name) {
  std::vector<std::string> names;
  for (int i = 0; i < descriptor.field_count(); ++i) names.push_back(descriptor.field(i)->name());
  return NearestName(names, name);
}

std::string TextLocations::Prefix(absl::string_view path) const {
  const TextFormat::ParseInfoTree* tree = tree_.get();
  const Descriptor* descriptor = descriptor_;
  int line = -1;
  const std::vector<std::string> parts = absl::StrSplit(path, '.');
  for (size_t i = 0; i < parts.size() && tree != nullptr && descriptor != nullptr; ++i) {
    const FieldDescriptor* field = descriptor->FindFieldByName(parts[i]);
    if (field == nullptr) break;
    int index = -1;
    if (field->is_repeated()) {
      index = 0;
      if (i + 1 < parts.size() && absl::SimpleAtoi(parts[i + 1], &index)) ++i;
    }
    const TextFormat::ParseLocation location = tree->GetLocation(field, index);
    if (location.line >= 0) line = location.line;
    descriptor = field->message_type();
    tree = descriptor == nullptr ? nullptr : tree->GetTreeForNested(field, index);
  }
  return line < 0 ? absl::StrCat(file_, ": ") : absl::StrCat(file_, ":", line + 1, ": ");
}

absl::StatusOr<TextLocations> ParseText(absl::string_view text, absl::string_view file,
                                        google::protobuf::Message& message) {
  TextLocations locations;
  locations.file_ = std::string(file);
  locations.descriptor_ = message.GetDescriptor();
  locations.tree_ = std::make_unique<TextFormat::ParseInfoTree>();
  FirstError errors;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  parser.WriteLocationsTo(locations.tree_.get());
  if (!parser.ParseFromString(std::string(text), &message)) {
    return absl::InvalidArgumentError(errors.ToString(file, *message.GetDescriptor()));
  }
  return locations;
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t bytes_max) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  if (info.st_size > bytes_max) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", info.st_size, " bytes; at most ", bytes_max, " are expected here"));
  }
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in.is_open() || in.bad())
    return absl::ErrnoToStatus(errno != 0 ? errno : EIO, absl::StrCat("cannot read ", path));
  return std::move(text).str();
}

absl::Status Override(absl::string_view assignment, google::protobuf::Message& message) {
  const size_t equals = assignment.find('=');
  if (equals == absl::string_view::npos || equals == 0) return BadOverride(assignment, "expected path=value");
  const std::vector<std::string> path = absl::StrSplit(assignment.substr(0, equals), '.');
  const absl::string_view value = assignment.substr(equals + 1);
  google::protobuf::Message* at = &message;
  for (size_t i = 0; i < path.size(); ++i) {
    const Descriptor& descriptor = *at->GetDescriptor();
    const FieldDescriptor* field = descriptor.FindFieldByName(path[i]);
    if (field == nullptr) {
      const std::string nearest = NearestField(descriptor, path[i]);
      return BadOverride(assignment,
                         absl::StrCat("unknown field \"", path[i], "\" in ", descriptor.name(),
                                      nearest.empty() ? "" : absl::StrCat("; did you mean \"", nearest, "\"?")));
    }
    const auto* reflection = at->GetReflection();
    int index = -1;
    if (field->is_repeated() && i + 1 < path.size()) {
      if (!absl::SimpleAtoi(path[++i], &index) || index < 0) {
        return BadOverride(assignment,
                           absl::StrCat(field->name(), " is a list: expected an index, not \"", path[i], "\""));
      }
    }
    if (i + 1 == path.size()) {
      return field->is_repeated() ? SetRepeated(assignment, *field, index, value, *at)
                                  : SetScalar(assignment, *field, value, *at);
    }
    if (field->message_type() == nullptr) return BadOverride(assignment, absl::StrCat(field->name(), " has no fields"));
    if (field->is_repeated() && index >= reflection->FieldSize(*at, field)) {
      return BadOverride(assignment, absl::StrCat(field->name(), " has no element ", index));
    }
    at = field->is_repeated() ? reflection->MutableRepeatedMessage(at, field, index)
                              : reflection->MutableMessage(at, field);
  }
  return BadOverride(assignment, "empty path");
}

}  // namespace sluice
