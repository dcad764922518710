// One of this process's own outputs, written without ever waiting: whoever reads it may be slow, stopped or gone.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace sluice::tools {

class Outlet {
 public:
  // The file stays the caller's.
  explicit Outlet(int file) : file_(file) {}

  void AddLine(absl::string_view prefix, absl::string_view line);
  // Writes a piece. REQUIRES: poll() found it writable.
  void Write();

  int file() const { return file_; }
  bool has_text() const { return !text_.empty(); }
  // What comes should wait until some of it has been written.
  bool is_full() const { return text_.size() > kBytesMax; }

 private:
  static constexpr size_t kBytesMax = 1 << 20;

  const int file_;
  bool is_closed_ = false;  // nobody reads it any more
  std::string text_;
};

}  // namespace sluice::tools
