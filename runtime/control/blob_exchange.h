// Blobs that every process gives once per name, and that all get when the last one has come. The coordinator's part.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/time.h"

namespace sluice {

class BlobExchange {
 public:
  // bytes_max: of all blobs that are held at one time, and so of one answer.
  BlobExchange(int processes, int64_t bytes_max) : processes_(processes), bytes_max_(bytes_max) {}

  // All blobs of that name in order of process, if this was the last. ALREADY_EXISTS: it has given one.
  // RESOURCE_EXHAUSTED: too much.
  absl::StatusOr<std::optional<std::vector<std::string>>> Add(int process, const std::string& name, std::string blob,
                                                              Nanoseconds now);

  struct Late {
    std::string name;
    std::vector<int> missing;  // processes
  };
  // An exchange that began before `time` and isn't done.
  std::optional<Late> BegunBefore(Nanoseconds time) const;

 private:
  struct Round {
    Nanoseconds since = 0;
    std::map<int, std::string> blobs;  // by process
    int64_t bytes = 0;
  };

  const int processes_;
  const int64_t bytes_max_;
  std::map<std::string, Round> rounds_;
  int64_t bytes_ = 0;
};

}  // namespace sluice
