#include "tools/bench/forked_processes.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <utility>

#include "base/check.h"

namespace sluice {
namespace {

bool WriteAll(int fd, const void* data, size_t bytes) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = send(fd, from, bytes, MSG_NOSIGNAL);
    if (written <= 0) return false;
    from += written;
    bytes -= static_cast<size_t>(written);
  }
  return true;
}

bool ReadAll(int fd, void* data, size_t bytes) {
  char* to = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = read(fd, to, bytes);
    if (got <= 0) return false;
    to += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

bool WriteBlob(int fd, const std::string& blob) {
  const uint64_t bytes = blob.size();
  return WriteAll(fd, &bytes, sizeof(bytes)) && WriteAll(fd, blob.data(), bytes);
}

bool ReadBlob(int fd, std::string* blob) {
  uint64_t bytes = 0;
  if (!ReadAll(fd, &bytes, sizeof(bytes))) return false;
  blob->resize(bytes);
  return ReadAll(fd, blob->data(), bytes);
}

// A child's way to the parent: the order of calls is the same everywhere, so names need not travel.
ExchangeBlobs ExchangeOver(int fd, int processes) {
  return [=](const std::string&, const std::string& mine) -> absl::StatusOr<std::vector<std::string>> {
    std::vector<std::string> all(processes);
    bool well = WriteBlob(fd, mine);
    for (std::string& blob : all) well = well && ReadBlob(fd, &blob);
    if (!well) return absl::UnavailableError("the parent has gone");
    return all;
  };
}

}  // namespace

ForkedProcesses::ForkedProcesses(int processes,
                                 const std::function<int(int process, const ExchangeBlobs& exchange)>& body) {
  for (int process = 0; process < processes; ++process) {
    int ends[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    const pid_t pid = fork();
    CHECK_GE(pid, 0);
    if (pid == 0) {
      for (const int other : sockets_) close(other);
      close(ends[0]);
      _exit(body(process, ExchangeOver(ends[1], processes)));
    }
    close(ends[1]);
    pids_.push_back(pid);
    sockets_.push_back(ends[0]);
  }
}

ForkedProcesses::~ForkedProcesses() {
  for (const pid_t pid : pids_) {
    if (pid <= 0) continue;
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
  }
  for (const int fd : sockets_) close(fd);
}

bool ForkedProcesses::CarryOneRound() {
  std::vector<std::string> blobs(sockets_.size());
  for (size_t i = 0; i < blobs.size(); ++i) {
    if (!ReadBlob(sockets_[i], &blobs[i])) return false;
  }
  for (const int fd : sockets_) {
    for (const std::string& blob : blobs) {
      if (!WriteBlob(fd, blob)) return false;
    }
  }
  return true;
}

std::vector<int> ForkedProcesses::Join() {
  while (CarryOneRound()) {
  }
  std::vector<int> statuses;
  for (pid_t& pid : pids_) {
    statuses.push_back(0);
    waitpid(std::exchange(pid, -1), &statuses.back(), 0);
  }
  return statuses;
}

}  // namespace sluice
