// Shell scripts as children of a supervisor, and what is left of them.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/world.h"
#include "gtest/gtest.h"
#include "tools/launch/supervisor.h"

namespace sluice::tools {

// What is written to it can be read again.
class Capture {
 public:
  Capture() : file_(std::tmpfile()) {}
  ~Capture() { std::fclose(file_); }
  int file() const { return fileno(file_); }
  std::string Text() const {
    std::string text;
    char piece[4096];
    for (off_t at = 0;; at = static_cast<off_t>(text.size())) {
      const ssize_t bytes = pread(file(), piece, sizeof piece, at);
      if (bytes <= 0) return text;
      text.append(piece, static_cast<size_t>(bytes));
    }
  }
  std::vector<std::string> Lines() const {
    std::vector<std::string> lines = absl::StrSplit(Text(), '\n');
    lines.pop_back();
    return lines;
  }

 private:
  std::FILE* const file_;
};

inline SupervisedChild Script(int number, const std::string& script) {
  return {.start = {.command = {"/bin/bash", "-c", script}},
          .name = absl::StrCat("process ", number),
          .prefix = absl::StrCat("[", number, "] ")};
}

inline bool IsAlive(pid_t process) {
  std::ifstream file(absl::StrCat("/proc/", process, "/stat"));
  std::string number, name, state;
  file >> number >> name >> state;
  return file && state != "Z";
}

// Waits until `holds()`, for as long as such a thing may take on a loaded machine. Returns whether it came.
template <typename Condition>
bool Comes(Condition holds, Nanoseconds longest = 20 * kSecond) {
  const auto world = NewRealWorld();
  while (!holds()) {
    if (world->Now() > longest) return false;
    world->SleepUntil(world->Now() + 2 * kMillisecond);
  }
  return true;
}

}  // namespace sluice::tools
