#include "tests/layering/sources.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string_view>

namespace sluice::layering {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 5> kExtensions = {".h", ".cc", ".cu", ".cuh", ".hpp"};

bool IsSource(const fs::path& path) {
  const std::string extension = path.extension().string();
  for (std::string_view known : kExtensions) {
    if (extension == known) return true;
  }
  return path.filename() == "BUILD" || path.filename() == "BUILD.bazel";
}

bool IsSkippedFolder(const fs::path& folder, const fs::path& root) {
  const std::string name = folder.filename().string();
  const bool output_link = folder.parent_path() == root && name.starts_with("bazel-");
  return output_link || name.starts_with(".") || folder == root / "examples" / "data";
}

// Calls visit(line_number, line) for each line, numbered from 1.
template <typename Visit>
void ForEachLine(const std::string& text, Visit visit) {
  std::istringstream stream(text);
  std::string line;
  for (int number = 1; std::getline(stream, line); ++number) visit(number, line);
}

std::string_view TrimLeft(std::string_view text) {
  const size_t start = text.find_first_not_of(" \t");
  return start == std::string_view::npos ? std::string_view() : text.substr(start);
}

// `a/b:c` -> `a/b/c`, `a/b` -> `a/b/b`.
std::string LabelAsPath(std::string_view label) {
  const size_t colon = label.find(':');
  if (colon == std::string_view::npos) {
    const size_t slash = label.rfind('/');
    return std::string(label) + "/" + std::string(slash == std::string_view::npos ? label : label.substr(slash + 1));
  }
  const std::string folder(label.substr(0, colon));
  return (folder.empty() ? "" : folder + "/") + std::string(label.substr(colon + 1));
}

}  // namespace

Sources ReadSources(const std::string& root) {
  Sources sources;
  const fs::path root_path(root);
  for (fs::recursive_directory_iterator entry(root_path), end; entry != end; ++entry) {
    if (entry->is_directory() && IsSkippedFolder(entry->path(), root_path)) {
      entry.disable_recursion_pending();
    } else if (!entry->is_directory() && IsSource(entry->path())) {
      std::ifstream file(entry->path(), std::ios::binary);
      sources[entry->path().lexically_relative(root_path).generic_string()] =
          std::string(std::istreambuf_iterator<char>(file), {});
    }
  }
  return sources;
}

bool IsBuildFile(const std::string& path) {
  const std::string name = fs::path(path).filename().string();
  return name == "BUILD" || name == "BUILD.bazel";
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

std::string StemOf(const std::string& path) { return fs::path(path).replace_extension().generic_string(); }

std::vector<Reference> Includes(const std::string& text) {
  std::vector<Reference> includes;
  ForEachLine(text, [&](int number, std::string_view line) {
    line = TrimLeft(line);
    if (!line.starts_with("#")) return;
    line = TrimLeft(line.substr(1));
    if (!line.starts_with("include")) return;
    line = TrimLeft(line.substr(std::string_view("include").size()));
    if (line.empty() || (line[0] != '"' && line[0] != '<')) return;
    const size_t end = line.find(line[0] == '"' ? '"' : '>', 1);
    if (end != std::string_view::npos) includes.push_back({number, std::string(line.substr(1, end - 1))});
  });
  return includes;
}

std::vector<Reference> Labels(const std::string& text) {
  std::vector<Reference> labels;
  ForEachLine(text, [&](int number, std::string_view line) {
    if (TrimLeft(line).starts_with("#")) return;
    for (size_t start = line.find("\"//"); start != std::string_view::npos; start = line.find("\"//", start)) {
      start += 3;
      const size_t end = line.find('"', start);
      if (end == std::string_view::npos) return;
      const std::string_view label = line.substr(start, end - start);
      const bool visibility = label.starts_with("visibility:") || label.find(":__") != std::string_view::npos;
      const bool condition = label.starts_with("conditions:");
      if (!visibility && !condition) labels.push_back({number, LabelAsPath(label)});
      start = end + 1;
    }
  });
  return labels;
}

std::vector<Reference> LinesWith(const std::string& text, const std::string& word) {
  std::vector<Reference> lines;
  ForEachLine(text, [&](int number, std::string_view line) {
    const std::string_view code = line.substr(0, line.find("//"));
    if (code.find(word) != std::string_view::npos) lines.push_back({number, word});
  });
  return lines;
}

}  // namespace sluice::layering
