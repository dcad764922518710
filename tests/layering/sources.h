// The project's sources as text, and what each file refers to: includes and Bazel labels.
//
// Plain values and pure functions, so that the rules can be tried on sources made up in a test. Nothing here knows a
// rule.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace sluice::layering {

// Path from the workspace root -> text. C++ sources, headers, CUDA files and BUILD files.
using Sources = std::map<std::string, std::string>;

// Something that a line of a file names: a header, or a Bazel label turned into a path.
struct Reference {
  int line = 0;
  std::string target;  // `base/check.h`, `vector`; for a label without its `//`: `base/base`, `kernels/cpu/device`
};

// Reads every source below `root`. Bazel's output links, hidden folders and git-ignored data are left out.
Sources ReadSources(const std::string& root);

bool IsBuildFile(const std::string& path);

// The folder of `path` with a slash at its end, or the empty string for a file of the root.
std::string FolderOf(const std::string& path);

// The path without its extension.
std::string StemOf(const std::string& path);

// The #include lines of a C++ source, whether "quoted" or <bracketed>.
std::vector<Reference> Includes(const std::string& text);

// The `//package:target` labels of a BUILD file, without visibility. `//a/b` means `//a/b:b`.
std::vector<Reference> Labels(const std::string& text);

// The lines of a C++ source that contain `word`, outside comments of the `//` kind.
std::vector<Reference> LinesWith(const std::string& text, const std::string& word);

}  // namespace sluice::layering
