#include "runtime/config/paths.h"

#include <filesystem>
#include <system_error>

namespace sluice {

std::string UserDirectory(const char* build_working_directory) {
  if (build_working_directory != nullptr && *build_working_directory != '\0') return build_working_directory;
  std::error_code error;
  const std::filesystem::path path = std::filesystem::current_path(error);
  return error ? "." : path.string();
}

std::string ResolvePath(absl::string_view folder, absl::string_view path) {
  if (path.empty() || path.front() == '/') return std::string(path);
  return (std::filesystem::path(std::string(folder)) / std::string(path)).lexically_normal().string();
}

std::string FolderOf(absl::string_view path) {
  const std::string folder = std::filesystem::path(std::string(path)).parent_path().string();
  return folder.empty() ? "." : folder;
}

}  // namespace sluice
