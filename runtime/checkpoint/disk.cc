#include "runtime/checkpoint/disk.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/trace/file_writer.h"

namespace sluice {

namespace {

// Whether that is news.
bool ThroughCache(int file) {
  const int flags = fcntl(file, F_GETFL);
  return flags >= 0 && (flags & O_DIRECT) != 0 && fcntl(file, F_SETFL, flags & ~O_DIRECT) == 0;
}

}  // namespace

absl::Status Disk::Before(absl::string_view what, const std::string& path) const {
  return before_ == nullptr ? absl::OkStatus() : before_(absl::StrCat(what, " ", path));
}

absl::Status Disk::MakeFolder(const std::string& path) const {
  RETURN_IF_ERROR(Before("make", path));
  std::error_code error;
  std::filesystem::create_directories(path, error);
  return error ? FileError("make the folder", path, error.value()) : absl::OkStatus();
}

absl::StatusOr<int> Disk::CreateFile(const std::string& path) const {
  RETURN_IF_ERROR(Before("create", path));
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
  int file = open(path.c_str(), kFlags | O_DIRECT, 0666);
  if (file < 0 && errno == EINVAL) {
    unlink(path.c_str());  // some make the file before they look at the flag
    file = open(path.c_str(), kFlags, 0666);
  }
  return file < 0 ? absl::StatusOr<int>(FileError("write", path, errno)) : file;
}

absl::Status Disk::Write(int file, const std::string& path, absl::Span<const std::byte> bytes) const {
  RETURN_IF_ERROR(Before("write", path));
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EINVAL && ThroughCache(file)) continue;
    if (written < 0) return FileError("write", path, errno);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status Disk::SyncAndClose(int file, const std::string& path) const {
  absl::Status status = Before("sync", path);
  if (status.ok() && fsync(file) != 0) status = FileError("write", path, errno);
  if (close(file) != 0 && status.ok()) status = FileError("write", path, errno);
  return status;
}

absl::Status Disk::SyncFolder(const std::string& path) const {
  RETURN_IF_ERROR(Before("sync", path));
  const int folder = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return FileError("open", path, errno);
  absl::Status status;
  // Some file systems can't, and need not.
  if (fsync(folder) != 0 && errno != EINVAL && errno != EROFS) status = FileError("write", path, errno);
  close(folder);
  return status;
}

absl::Status Disk::Rename(const std::string& from, const std::string& to) const {
  RETURN_IF_ERROR(Before("rename", from));
  // rename() alone would put a folder in the place of an empty one.
  if (access(to.c_str(), F_OK) == 0) return absl::AlreadyExistsError(absl::StrCat(to, " is there already"));
  if (rename(from.c_str(), to.c_str()) != 0) return FileError("rename", from, errno);
  return absl::OkStatus();
}

absl::Status Disk::Remove(const std::string& path) const {
  RETURN_IF_ERROR(Before("remove", path));
  std::error_code error;
  std::filesystem::remove_all(path, error);
  return error ? FileError("remove", path, error.value()) : absl::OkStatus();
}

}  // namespace sluice
