// A timeline in a file, as a picture, a page, a trace or text, by the file's ending.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/timeline.h"

namespace sluice::tools {

// "svg", "png", "html", "text", "json" or "perfetto". Errors: INVALID_ARGUMENT with the endings there are.
absl::StatusOr<std::string> TimelineFormat(const std::string& path);

// `path` is where to write to; `format` as of TimelineFormat. Errors: from drawing (PngOf) and from the file system.
absl::Status WriteTimeline(const std::string& path, const std::string& format, const Timeline& timeline);

}  // namespace sluice::tools
