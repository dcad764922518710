// Writes a whole file or nothing: into "PATH.partial" beside it, renamed when finished. What is no regular file (a
// pipe, a terminal, /dev/null) is written directly.
//
// Threads: one. Ownership: owns the open file; a writer that goes away unfinished removes what it wrote.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

// The Status of a failed file operation: "cannot write PATH: No space left on device; free space on that disk, ...".
absl::Status FileError(absl::string_view doing, const std::string& path, int error_number);

class FileWriter {
 public:
  // Errors: the folder is missing or not writable; the message has path and remedy.
  static absl::StatusOr<std::unique_ptr<FileWriter>> Create(const std::string& path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  // Text to write goes behind what is here; call FlushIfFull() from time to time.
  std::string& buffer() { return buffer_; }
  void FlushIfFull() {
    if (buffer_.size() >= kBufferBytes) Flush();
  }
  // The first error since Create(), if any.
  const absl::Status& status() const { return first_error_; }

  // Writes over the first bytes of what has been written, for a header that is known last. REQUIRES: that many have been.
  // Errors: what is no regular file has no beginning to return to.
  void WriteOverStart(absl::string_view bytes);

  // Gives the file its name. Errors: the first that writing met; then nothing of it stays. No call after this one.
  absl::Status Finish();

 private:
  static constexpr size_t kBufferBytes = 1 << 20;

  FileWriter() = default;
  void Flush();

  std::string path_;     // as the user wrote it
  std::string target_;   // symbolic links followed
  std::string partial_;  // empty: written directly
  int file_ = -1;
  std::string buffer_;
  absl::Status first_error_;
};

// All of `text` as the file `path`, or nothing.
absl::Status WriteWholeFile(const std::string& path, absl::string_view text);

}  // namespace sluice
