#include "tools/png.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sluice::tools {
namespace {

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

// Runs rsvg-convert from `in` to `out`; 0, or the number of the error that kept it from starting, or -1 if it failed.
int Convert(int in, int out) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
  char program[] = "rsvg-convert", unlimited[] = "--unlimited";
  char* const arguments[] = {program, unlimited, nullptr};
  pid_t process = 0;
  const int error = posix_spawnp(&process, program, &files, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) return error;
  int status = 0;
  while (waitpid(process, &status, 0) < 0) {
    if (errno != EINTR) return errno;
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return ENOENT;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

}  // namespace

absl::StatusOr<std::string> PngOf(const std::string& svg) {
  const File in(std::tmpfile(), std::fclose), out(std::tmpfile(), std::fclose);
  if (!in || !out || std::fwrite(svg.data(), 1, svg.size(), in.get()) != svg.size() || std::fflush(in.get()) != 0) {
    return absl::ErrnoToStatus(errno, "cannot write a temporary file for the PNG");
  }
  lseek(fileno(in.get()), 0, SEEK_SET);
  const int error = Convert(fileno(in.get()), fileno(out.get()));
  if (error == ENOENT) {
    return absl::UnavailableError(
        "PNG needs rsvg-convert, which is not installed (Debian's package librsvg2-bin): install it, or write .svg");
  }
  if (error != 0) {
    return absl::InternalError(absl::StrCat("rsvg-convert could not draw the PNG", error > 0 ? ": " : "",
                                            error > 0 ? std::strerror(error) : "",
                                            "; write .svg to see what it was given"));
  }
  std::string png(static_cast<size_t>(lseek(fileno(out.get()), 0, SEEK_END)), '\0');
  lseek(fileno(out.get()), 0, SEEK_SET);
  if (std::fread(png.data(), 1, png.size(), out.get()) != png.size()) {
    return absl::ErrnoToStatus(errno, "cannot read the PNG back from its temporary file");
  }
  return png;
}

}  // namespace sluice::tools
