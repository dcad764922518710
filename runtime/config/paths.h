// Paths as people write them: relative to where they stand, or to the file in which they stand.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace sluice {

// Where the user stands: `build_working_directory` (the variable BUILD_WORKING_DIRECTORY, which `bazel run` sets) if it
// is not null and not empty, else the process' working directory. The caller reads the environment.
std::string UserDirectory(const char* build_working_directory);

// `path` itself if it is absolute or empty, else `folder`/`path`.
std::string ResolvePath(absl::string_view folder, absl::string_view path);

// The folder in which `path` lies; "." for a bare name.
std::string FolderOf(absl::string_view path);

}  // namespace sluice
