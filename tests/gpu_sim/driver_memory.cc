#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/gpu_sim/driver.h"
#include "tests/gpu_sim/memory.h"

namespace gpu_sim {
namespace {

struct Rows {
  int64_t bytes;
  int64_t count;
};

LaunchRegion RegionOf(const CopySide& side, Rows rows) { return {side.data, rows.bytes, rows.count, side.pitch}; }

// Where the simulator finds the bytes of a copy's side.
std::byte* PlaceOf(const CopySide& side) {
  return IsPinned(side.data) ? PinnedStorageOf(side.data) : StorageOf(side.data);
}

void CopyRows(std::byte* to, int64_t to_pitch, const std::byte* from, int64_t from_pitch, Rows rows) {
  for (int64_t row = 0; row < rows.count; ++row) std::memmove(to + row * to_pitch, from + row * from_pitch, rows.bytes);
}

}  // namespace

cudaError_t Driver::Allocate(const Caller& caller, int device, void** data, size_t bytes) {
  if (data == nullptr) return cudaErrorInvalidValue;
  *data = nullptr;
  if (bytes == 0) return cudaSuccess;
  const bool pinned = device == LiveMemory::kPinned;
  std::lock_guard lock(mutex_);
  ++(pinned ? counters_.host_allocations : counters_.device_allocations);
  ++counters_.synchronisations;  // the real one may
  const int64_t asked = static_cast<int64_t>(bytes);
  if (!pinned && (asked < 0 || asked > memory_bytes() - devices_[device].bytes)) return cudaErrorMemoryAllocation;
  const LiveMemory* allocation = memory_.Allocate(device, asked, caller.site);
  if (allocation == nullptr) return cudaErrorMemoryAllocation;
  if (!pinned) devices_[device].bytes += asked;
  const auto begin = reinterpret_cast<uintptr_t>(allocation->data);
  order_.Allocate({begin, begin + bytes}, pinned ? OrderCheck::Content::kWritten : OrderCheck::Content::kNone);
  *data = allocation->data;
  return cudaSuccess;
}

cudaError_t Driver::Free(const Caller& caller, void* data, bool pinned) {
  if (data == nullptr) return cudaSuccess;
  std::unique_lock lock(mutex_);
  ++counters_.synchronisations;
  const LiveMemory* allocation = memory_.Find(data, 1);
  if (allocation == nullptr || allocation->data != data || (allocation->device == LiveMemory::kPinned) != pinned) {
    return cudaErrorInvalidValue;
  }
  const LiveMemory freed = *allocation;
  const auto begin = reinterpret_cast<uintptr_t>(data);
  const OrderCheck::Bytes bytes = {begin, begin + static_cast<uintptr_t>(freed.bytes)};
  const std::vector<OrderCheck::Finding> in_use = order_.HostAccess(bytes, /*writes=*/true);
  for (const OrderCheck::Finding& finding : in_use) {
    reports_.Add(ReportKind::kFreedInUse,
                 absl::StrCat(caller.name, " at ", caller.site.file_name(), ":", caller.site.line(), " frees ",
                              NameOf(finding.bytes), " while the host doesn't know that ",
                              log_.Describe(finding.earlier), " has ended"));
  }
  // The real one waits, for all of the device.
  std::vector<CompletionRef> ends;
  for (const Stream& stream : streams_) {
    if (!in_use.empty()) ends.push_back(execution_->EndOf(stream.number));
  }
  lock.unlock();
  for (const CompletionRef& end : ends) {
    if (end != nullptr) execution_->WaitFor(end);
  }
  lock.lock();
  if (!pinned) devices_[freed.device].bytes -= freed.bytes;
  order_.Free(bytes);
  pinned_use_.End(
      [&](const PinnedUse::Use& use) { return use.bytes.begin >= bytes.begin && use.bytes.begin < bytes.end; });
  memory_.Free(data, caller.site);
  return cudaSuccess;
}

cudaError_t Driver::PointerAttributes(cudaPointerAttributes* attributes, const void* data) const {
  std::lock_guard lock(mutex_);
  *attributes = {.type = cudaMemoryTypeUnregistered, .device = CurrentDevice(), .hostPointer = const_cast<void*>(data)};
  const LiveMemory* allocation = memory_.Find(data, 1);
  if (allocation == nullptr) return cudaSuccess;
  attributes->devicePointer = const_cast<void*>(data);
  attributes->type = cudaMemoryTypeHost;
  if (allocation->device == LiveMemory::kPinned) return cudaSuccess;
  *attributes = {.type = cudaMemoryTypeDevice, .device = allocation->device, .devicePointer = const_cast<void*>(data)};
  return cudaSuccess;
}

Driver::CopyPath Driver::PathOf(const LiveMemory* to, const LiveMemory* from, int64_t bytes) {
  const auto device_of = [](const LiveMemory* side) { return side != nullptr ? side->device : LiveMemory::kPinned; };
  const int target = device_of(to), source = device_of(from);
  if (target == LiveMemory::kPinned && source == LiveMemory::kPinned) return {.kind = cudaMemcpyHostToHost};
  const DeviceDescription& device = options_.device;
  if (source == LiveMemory::kPinned) {
    return {cudaMemcpyHostToDevice, devices_[target].to_device, CopyTime(device.host, bytes)};
  }
  if (target == LiveMemory::kPinned)
    return {cudaMemcpyDeviceToHost, devices_[source].to_host, CopyTime(device.host, bytes)};
  if (target == source) return {cudaMemcpyDeviceToDevice, devices_[source].local, LocalCopyTime(device, bytes)};
  // Without access of one to the other, by way of host memory.
  const bool direct = devices_[source].peers.contains(target) || devices_[target].peers.contains(source);
  return {cudaMemcpyDeviceToDevice, devices_[source].to_peer[target],
          direct ? CopyTime(device.peer, bytes) : 2 * CopyTime(device.host, bytes)};
}

cudaError_t Driver::Copy(const Caller& caller, CopySide to, CopySide from, int64_t bytes, int64_t rows,
                         cudaMemcpyKind kind, cudaStream_t stream) {
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault) return cudaErrorInvalidMemcpyDirection;
  if (rows > 1 && (to.pitch < bytes || from.pitch < bytes)) return cudaErrorInvalidPitchValue;
  std::unique_lock lock(mutex_);
  Stream* on = Find(caller, stream);
  if (on == nullptr) return cudaErrorInvalidResourceHandle;
  if (bytes == 0 || rows == 0) return cudaSuccess;
  const Rows shape = {bytes, rows};
  const LiveMemory* target = memory_.Find(to.data, (rows - 1) * to.pitch + bytes);
  const LiveMemory* source = memory_.Find(from.data, (rows - 1) * from.pitch + bytes);
  if (!KnownEnd(caller, to.data, target) || !KnownEnd(caller, from.data, source)) return cudaErrorInvalidValue;
  const CopyPath path = PathOf(target, source, bytes * rows);
  if (kind != cudaMemcpyDefault && kind != path.kind) return cudaErrorInvalidValue;
  ++counters_.copies;
  Command command = {.engine = path.engine, .latency = options_.device.launch_latency, .duration = path.duration};
  command.completion = std::make_shared<Completion>();
  command.effect = [to, from, shape] {
    CopyRows(PlaceOf(to), to.pitch, PlaceOf(from), from.pitch, shape);
    return cudaSuccess;
  };
  std::vector<LaunchRegion> reads, writes;
  if (source != nullptr) reads.push_back(RegionOf(from, shape));
  if (target != nullptr) writes.push_back(RegionOf(to, shape));
  const CompletionRef end = command.completion;
  Issue(caller, on, reads, writes, std::move(command));
  if (source != nullptr && target != nullptr) return cudaSuccess;
  reports_.Add(ReportKind::kPageable, absl::StrCat(caller.name, " at ", caller.site.file_name(), ":",
                                                   caller.site.line(), " copies ", source == nullptr ? "from" : "to",
                                                   " pageable host memory, and so waits for the device: use "
                                                   "cudaHostAlloc"));
  ++counters_.synchronisations;
  lock.unlock();
  return execution_->WaitFor(end);
}

bool Driver::KnownEnd(const Caller& caller, const void* data, const LiveMemory* allocation) {
  // Pageable memory lies outside of all that was allocated here.
  if (allocation != nullptr || (FindAddress(data).kind == AddressKind::kHost && !IsPinned(data))) return true;
  const auto begin = reinterpret_cast<uintptr_t>(data);
  reports_.Add(ReportKind::kRegion, absl::StrCat(caller.name, " at ", caller.site.file_name(), ":", caller.site.line(),
                                                 " copies beyond live memory: ", NameOf({begin, begin + 1})));
  return false;
}

cudaError_t Driver::CopyPeer(const Caller& caller, void* to, int to_device, const void* from, int from_device,
                             int64_t bytes, cudaStream_t stream) {
  for (int device : {to_device, from_device}) {
    if (device < 0 || device >= devices()) return cudaErrorInvalidDevice;
  }
  {
    std::lock_guard lock(mutex_);
    const LiveMemory* target = memory_.Find(to, bytes);
    const LiveMemory* source = memory_.Find(from, bytes);
    if (bytes > 0 &&
        (target == nullptr || target->device != to_device || source == nullptr || source->device != from_device)) {
      return cudaErrorInvalidValue;
    }
  }
  return Copy(caller, {to, bytes}, {from, bytes}, bytes, 1, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t Driver::Set(const Caller& caller, void* data, int value, int64_t bytes, cudaStream_t stream) {
  std::lock_guard lock(mutex_);
  Stream* on = Find(caller, stream);
  if (on == nullptr) return cudaErrorInvalidResourceHandle;
  if (bytes == 0) return cudaSuccess;
  const LaunchRegion region = {data, bytes, 1, 0};
  if (!CheckRegions(caller, on->device, {region})) return cudaErrorInvalidValue;
  Issue(caller, on, {}, {region},
        {.engine = devices_[on->device].compute,
         .latency = options_.device.launch_latency,
         .duration = LocalCopyTime(options_.device, bytes / 2),
         .effect = [=] {
           std::memset(StorageOf(data), value, bytes);
           return cudaSuccess;
         }});
  return cudaSuccess;
}

}  // namespace gpu_sim
