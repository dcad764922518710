#include "runtime/trace/file_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace sluice {
namespace {

const char* Remedy(int error_number) {
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return "free space on that disk, or give a path on another one";
    case EACCES:
    case EPERM:
    case EROFS:
      return "give a path in a folder that you may write to";
    case ENOENT:
    case ENOTDIR:
      return "create its folder first, or give another path";
    case EISDIR:
      return "it is a folder: give the path of a file";
    default:
      return "give another path";
  }
}

}  // namespace

absl::Status FileError(absl::string_view doing, const std::string& path, int error_number) {
  const absl::Status status = absl::ErrnoToStatus(error_number, absl::StrCat("cannot ", doing, " ", path));
  return absl::Status(status.code(), absl::StrCat(status.message(), "; ", Remedy(error_number)));
}

absl::StatusOr<std::unique_ptr<FileWriter>> FileWriter::Create(const std::string& path) {
  std::unique_ptr<FileWriter> writer(new FileWriter());
  writer->path_ = writer->target_ = path;
  std::error_code missing;
  const std::filesystem::path real = std::filesystem::canonical(path, missing);
  if (!missing) writer->target_ = real.string();
  struct stat info;
  const bool exists = stat(path.c_str(), &info) == 0;
  if (exists && S_ISDIR(info.st_mode)) return FileError("write", path, EISDIR);
  const bool direct = exists && !S_ISREG(info.st_mode);
  if (!direct) writer->partial_ = absl::StrCat(writer->target_, ".partial");
  const std::string& opened = direct ? path : writer->partial_;
  writer->file_ = open(opened.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (writer->file_ < 0) {
    const int error = errno;
    writer->partial_.clear();  // not ours
    return FileError("write", path, error);
  }
  return writer;
}

FileWriter::~FileWriter() {
  if (file_ >= 0) close(file_);
  if (!partial_.empty()) unlink(partial_.c_str());
}

void FileWriter::Flush() {
  const char* next = buffer_.data();
  size_t left = first_error_.ok() ? buffer_.size() : 0;
  while (left > 0) {
    const ssize_t written = write(file_, next, left);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      first_error_ = FileError("write", path_, errno);
      break;
    }
    next += written;
    left -= static_cast<size_t>(written);
  }
  buffer_.clear();
}

void FileWriter::WriteOverStart(absl::string_view bytes) {
  Flush();
  if (!first_error_.ok()) return;
  const ssize_t written = pwrite(file_, bytes.data(), bytes.size(), 0);
  if (written < 0) {
    first_error_ = FileError("write over the start of", path_, errno);
  } else if (static_cast<size_t>(written) < bytes.size()) {
    first_error_ = FileError("write", path_, ENOSPC);
  }
}

absl::Status FileWriter::Finish() {
  Flush();
  if (close(std::exchange(file_, -1)) != 0 && first_error_.ok()) first_error_ = FileError("write", path_, errno);
  RETURN_IF_ERROR(first_error_);
  if (partial_.empty()) return absl::OkStatus();
  if (std::rename(partial_.c_str(), target_.c_str()) != 0) return FileError("write", path_, errno);
  partial_.clear();
  return absl::OkStatus();
}

absl::Status WriteWholeFile(const std::string& path, absl::string_view text) {
  ASSIGN_OR_RETURN(const std::unique_ptr<FileWriter> writer, FileWriter::Create(path));
  writer->buffer() = std::string(text);
  return writer->Finish();
}

}  // namespace sluice
