// What one device can do: memory, streams of work in order, events. Completion is an event of the device, never a callback to the
// host; work returns an event, and work takes events to wait for.
//
// Threads: a device and its streams are used by one issuing thread, which never computes: every call below returns at once (a call may
// wait while a stream's queue of commands is full). Events may be polled and waited for from any thread.
// Errors: the first error of a stream is terminal. Later work on it is skipped, and later events carry that error.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/event.h"
#include "kernels/tensor.h"

namespace sluice {

class Device;
class Operations;

// Owner of a piece of device memory, at least 64-byte aligned and zeroed. Move-only; freed when it dies. The device must outlive it.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device* device, std::byte* data, int64_t bytes) : device_(device), data_(data), bytes_(bytes) {}
  Buffer(Buffer&& other) noexcept { Swap(other); }
  Buffer& operator=(Buffer other) noexcept {
    Swap(other);
    return *this;
  }
  ~Buffer();
  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  void Swap(Buffer& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

 private:
  Device* device_ = nullptr;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

class Stream {
 public:
  virtual ~Stream() = default;  // waits for the work issued so far
  // Work issued later starts only when the event is done. An event that ended in an error makes that the stream's error.
  virtual void Wait(const EventRef& event) = 0;
  // Done when all work issued so far has ended. began() is when the device started the first work after the previous Record() or
  // Wait(), so that a record before some work and one after it give its span; without work between them it is ended().
  virtual EventRef Record() = 0;
  // Record() and Wait() in the middle of work whose span is measured as one, around what others do with a part of it:
  // began() of the Record() after it stays the beginning of its first command.
  virtual EventRef Fork() = 0;
  virtual void Join(const EventRef& event) = 0;
  // Blocks the caller until all work issued so far has ended, well or not: before memory that it uses is freed.
  virtual void Drain() = 0;
  // Makes `cause` the stream's error, unless it has one: whatever it waits for is waited for no longer, and what has
  // not begun is skipped. Any thread.
  virtual void Abort(const absl::Status& cause) = 0;
  // Host memory must stay as it is until a later Record() is done.
  virtual void CopyToDevice(const void* host, TensorView device) = 0;
  virtual void CopyToHost(TensorView device, void* host) = 0;
};

struct MemoryUse {
  int64_t bytes = 0;        // held now
  int64_t peak_bytes = 0;   // most ever held
  int64_t allocations = 0;  // calls of Allocate() so far
};

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string description() const = 0;
  // RESOURCE_EXHAUSTED names the purpose, the bytes asked for, held and allowed.
  virtual absl::StatusOr<Buffer> Allocate(int64_t bytes, absl::string_view purpose) = 0;
  virtual std::unique_ptr<Stream> NewStream(absl::string_view name) = 0;
  virtual const Operations& operations() const = 0;
  virtual MemoryUse memory() const = 0;

 private:
  friend class Buffer;
  virtual void Free(std::byte* data, int64_t bytes) = 0;
};

inline Buffer::~Buffer() {
  if (data_ != nullptr) device_->Free(data_, bytes_);
}

}  // namespace sluice
