// Reads protocol buffers in text form from people: an error says file:line:column, and for an unknown field the known
// one that is spelled most alike.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"

namespace sluice {

// Where the fields of a parsed message stand in its file.
class TextLocations {
 public:
  // "job.textproto:12: " for the field `path` ("training.batch", "node.3.name"), for its message if the field itself
  // isn't in the text, or "job.textproto: " if that isn't either.
  std::string Prefix(absl::string_view path) const;

 private:
  friend absl::StatusOr<TextLocations> ParseText(absl::string_view, absl::string_view, google::protobuf::Message&);
  std::string file_;
  const google::protobuf::Descriptor* descriptor_ = nullptr;
  std::unique_ptr<google::protobuf::TextFormat::ParseInfoTree> tree_;
};

// Parses `text` into `message`. `file` is for errors only. Errors: INVALID_ARGUMENT.
absl::StatusOr<TextLocations> ParseText(absl::string_view text, absl::string_view file,
                                        google::protobuf::Message& message);

// Reads a whole file of at most `bytes_max`. Errors: as the system gives them, INVALID_ARGUMENT for what is not a
// regular file or too large.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t bytes_max = int64_t{64} << 20);

// Sets one field from "path=value": "training.steps=10", "data.tokens.0=a.bin" (an index equal to the number of
// elements appends), "layout.layers_per_stage=[2, 3]" (all elements), "data.text=a b.txt" (strings need no quotes).
// Errors: INVALID_ARGUMENT.
absl::Status Override(absl::string_view assignment, google::protobuf::Message& message);

// The field of `descriptor` whose name is most like `name`; "" if none is near.
std::string NearestField(const google::protobuf::Descriptor& descriptor, absl::string_view name);
// The nearest of `names`; "" if none is near.
std::string NearestName(const std::vector<std::string>& names, absl::string_view name);

}  // namespace sluice
