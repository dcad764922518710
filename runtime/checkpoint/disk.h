// What the store does to a disk, step by step. Before each step a hook is told, which tests use to end the process
// there or to let the step fail; a program has none.
//
// Threads: any. Plain values.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace sluice {

class Disk {
 public:
  static constexpr size_t kAlignment = 4096;

  // `step`: "write /a/b.safetensors", "sync ...", "rename ...". An error is the step's.
  using Hook = std::function<absl::Status(absl::string_view step)>;

  Disk() = default;
  explicit Disk(Hook before) : before_(std::move(before)) {}

  // All errors name the path, and how to mend it: no space, no permission, a read-only disk.
  // With the folders above it.
  absl::Status MakeFolder(const std::string& path) const;
  // A new file for writing, of which there may be none. Where the file system can, what is written goes to the disk
  // around the page cache: copying into the cache would take longer than a fast disk does, and time and memory from
  // training.
  absl::StatusOr<int> CreateFile(const std::string& path) const;
  // Around the cache until the first bytes that don't begin and end at a multiple of kAlignment, in memory and in the
  // file.
  absl::Status Write(int file, const std::string& path, absl::Span<const std::byte> bytes) const;
  // What was written to the file is on the disk when this returns, or it is closed with an error; closes it.
  absl::Status SyncAndClose(int file, const std::string& path) const;
  // The names in a folder are on the disk.
  absl::Status SyncFolder(const std::string& path) const;
  // ALREADY_EXISTS: `to` is there.
  absl::Status Rename(const std::string& from, const std::string& to) const;
  // A folder with all in it.
  absl::Status Remove(const std::string& path) const;

 private:
  absl::Status Before(absl::string_view what, const std::string& path) const;

  Hook before_;
};

}  // namespace sluice
