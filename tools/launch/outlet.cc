#include "tools/launch/outlet.h"

#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"

namespace sluice::tools {

void Outlet::AddLine(absl::string_view prefix, absl::string_view line) {
  if (!is_closed_) absl::StrAppend(&text_, prefix, line, "\n");
}

void Outlet::Write() {
  // A pipe that poll() calls writable takes so much without blocking.
  const ssize_t written = write(file_, text_.data(), std::min<size_t>(text_.size(), PIPE_BUF));
  if (written > 0) text_.erase(0, static_cast<size_t>(written));
  if (written >= 0 || errno == EINTR || errno == EAGAIN) return;
  is_closed_ = true;
  text_.clear();
}

}  // namespace sluice::tools
