#include "runtime/config/problems.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace sluice {

Problems::Problems(const TextLocations* locations, const std::vector<std::string>& overrides) : locations_(locations) {
  for (const std::string& assignment : overrides) {
    const std::vector<std::string> parts = absl::StrSplit(assignment, absl::MaxSplits('=', 1));
    overrides_[parts[0]] = assignment;
  }
}

std::string Problems::OverrideOf(absl::string_view field) const {
  // "data.tokens.1" is also set by "data.tokens=[...]", and "layout" by any of its fields is not.
  for (std::string path(field); !path.empty();) {
    if (const auto found = overrides_.find(path); found != overrides_.end()) return found->second;
    const size_t dot = path.rfind('.');
    if (dot == std::string::npos) return "";
    path.resize(dot);
  }
  return "";
}

std::string Problems::Place(absl::string_view field) const {
  const std::string assignment = OverrideOf(field);
  return assignment.empty() ? locations_->Prefix(field) : absl::StrCat("--set ", assignment, ": ");
}

void Problems::Add(absl::string_view field, absl::string_view message) {
  lines_.push_back(absl::StrCat(Place(field), message));
}

absl::Status Problems::status() const {
  return lines_.empty() ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrJoin(lines_, "\n"));
}

}  // namespace sluice
