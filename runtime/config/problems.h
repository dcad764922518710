// Collects what is wrong with a job, each with the place that the user wrote it at.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/text.h"

namespace sluice {

class Problems {
 public:
  // `locations` outlives it.
  Problems(const TextLocations* locations, const std::vector<std::string>& overrides);

  // `field` is the path whose place is named: "training.batch".
  void Add(absl::string_view field, absl::string_view message);
  // Whether the field, or all of its list, was set on the command line.
  bool Overridden(absl::string_view field) const { return !OverrideOf(field).empty(); }
  // Where the field was written, for a message: "job.textproto:12: ", or the assignment on the command line.
  std::string Place(absl::string_view field) const;
  bool empty() const { return lines_.empty(); }
  absl::Status status() const;  // INVALID_ARGUMENT with all of them, a line each

 private:
  std::string OverrideOf(absl::string_view field) const;

  const TextLocations* locations_;
  absl::flat_hash_map<std::string, std::string> overrides_;  // path -> assignment
  std::vector<std::string> lines_;
};

}  // namespace sluice
