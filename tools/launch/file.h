// The owner of a file descriptor.
#pragma once

#include <unistd.h>

#include <utility>

namespace sluice::tools {

class File {
 public:
  explicit File(int descriptor = -1) : descriptor_(descriptor) {}
  ~File() { Close(); }
  File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }

  bool is_open() const { return descriptor_ >= 0; }
  int get() const { return descriptor_; }
  void Close() {
    if (is_open()) close(std::exchange(descriptor_, -1));
  }

 private:
  int descriptor_;
};

}  // namespace sluice::tools
