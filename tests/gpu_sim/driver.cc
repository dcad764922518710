#include "tests/gpu_sim/driver.h"

#include <utility>

#include "absl/debugging/symbolize.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "tests/gpu_sim/environment.h"
#include "tests/gpu_sim/memory.h"
#include "tests/gpu_sim/nccl_library.h"

namespace gpu_sim {
namespace {

std::atomic<Driver*> installed{nullptr};

// Of this thread, as the real runtime keeps it.
thread_local cudaError_t last_error = cudaSuccess;

}  // namespace

Driver::Driver(MachineOptions options) : options_(std::move(options)), devices_(options_.devices) {
  CHECK(installed.exchange(this) == nullptr) << "two simulated machines in one process";
  execution_ = std::make_unique<Execution>(
      Execution::Options{.world = options_.world, .seed = options_.seed, .timing = options_.timing},
      Execution::Listeners{.on_failure =
                               [this](int device, cudaError_t error) {
                                 std::lock_guard lock(mutex_);
                                 devices_[device].lost = error;
                               },
                           .on_deadlock = [this](const std::vector<uint32_t>& calls) { ReportDeadlock(calls); }});
  nccl_ = std::make_unique<Nccl>(this);
  for (Device& device : devices_) {
    device.compute = execution_->NewEngine();
    device.to_device = execution_->NewEngine();
    device.to_host = execution_->NewEngine();
    device.local = execution_->NewEngine();
    for (int peer = 0; peer < options_.devices; ++peer) device.to_peer.push_back(execution_->NewEngine());
  }
  SetPinnedListener(this);
}

Driver::~Driver() {
  SetPinnedListener(nullptr);
  execution_.reset();
  installed = nullptr;
}

Driver& Driver::Get() {
  if (Driver* driver = installed) return *driver;
  InstallMachineOfEnvironment();
  CHECK(installed != nullptr);
  return *installed;
}

cudaError_t Driver::Call(const Caller& caller, const std::function<cudaError_t()>& body) {
  cudaError_t error = cudaSuccess;
  {
    std::lock_guard lock(mutex_);
    if (CurrentDevice() < devices()) error = devices_[CurrentDevice()].lost;
    if (const Fault* fault = NextFault(caller.name, Fault::Where::kCall)) error = fault->error;
  }
  if (error == cudaSuccess) error = body();
  if (error != cudaSuccess) last_error = error;
  return error;
}

cudaError_t Driver::LastError(bool clear) {
  const cudaError_t error = clear ? std::exchange(last_error, cudaSuccess) : last_error;
  std::lock_guard lock(mutex_);
  if (CurrentDevice() >= devices() || devices_[CurrentDevice()].lost == cudaSuccess) return error;
  return devices_[CurrentDevice()].lost;
}

const Fault* Driver::NextFault(const std::string& call, Fault::Where where) {
  const Fault* strikes = nullptr;
  for (const Fault& fault : options_.faults) {
    if (fault.call != call || fault.where != where) continue;
    if (fault.at == calls_[absl::StrCat(static_cast<int>(where), call)]) strikes = &fault;
  }
  if (!options_.faults.empty()) ++calls_[absl::StrCat(static_cast<int>(where), call)];
  return strikes;
}

Counters Driver::counters() const {
  std::lock_guard lock(mutex_);
  Counters counters = counters_;
  for (const Device& device : devices_) counters.device_bytes += device.bytes;
  return counters;
}

std::vector<std::string> Driver::wait_sites() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> sites;
  for (const auto& [site, times] : wait_sites_) sites.push_back(site);
  return sites;
}

std::string Driver::NameOf(OrderCheck::Bytes bytes) const {
  const LiveMemory* allocation = memory_.Find(reinterpret_cast<const void*>(bytes.begin), 1);
  if (allocation == nullptr) return "memory that is not live";
  const auto base = reinterpret_cast<uintptr_t>(allocation->data);
  const std::string where =
      allocation->device == LiveMemory::kPinned ? "host memory" : absl::StrCat("memory of device ", allocation->device);
  return absl::StrCat("bytes ", bytes.begin - base, " to ", bytes.end - base, " of the ", where, " allocated at ",
                      allocation->site.file_name(), ":", allocation->site.line());
}

void Driver::ReportFindings(uint32_t call, const std::vector<OrderCheck::Finding>& findings) {
  for (const OrderCheck::Finding& finding : findings) {
    const std::string later = log_.Describe(call);
    if (finding.kind == OrderCheck::Finding::Kind::kNeverWritten) {
      reports_.Add(ReportKind::kNeverWritten,
                   absl::StrCat(later, " reads what was never written: ", NameOf(finding.bytes)));
      continue;
    }
    reports_.Add(ReportKind::kRace, absl::StrCat("nothing orders ", log_.Describe(finding.earlier), ", which ",
                                                 finding.earlier_writes ? "writes" : "reads", ", before ", later,
                                                 ", which ", finding.later_writes ? "writes" : "reads", " ",
                                                 NameOf(finding.bytes), ": a wait for an event is missing"));
  }
}

bool Driver::Reaches(int device, const LiveMemory& allocation) const {
  return allocation.device == device || allocation.device == LiveMemory::kPinned ||
         devices_[device].peers.contains(allocation.device);
}

bool Driver::CheckRegions(const Caller& caller, int device, const std::vector<LaunchRegion>& regions) {
  for (const LaunchRegion& region : regions) {
    if (region.data == nullptr || region.bytes == 0 || region.rows == 0) continue;
    const int64_t bytes = (region.rows - 1) * region.stride + region.bytes;
    const LiveMemory* allocation = memory_.Find(region.data, bytes);
    if (allocation != nullptr && Reaches(device, *allocation)) continue;
    const auto begin = reinterpret_cast<uintptr_t>(region.data);
    reports_.Add(
        ReportKind::kRegion,
        absl::StrCat(caller.name, " at ", caller.site.file_name(), ":", caller.site.line(), " on device ", device,
                     allocation == nullptr ? " goes outside of live memory: " : " has no access to its peer's ",
                     NameOf({begin, begin + static_cast<uintptr_t>(bytes)})));
    return false;
  }
  return true;
}

void Driver::HostSaw(const Clock& clock) {
  order_.HostSaw(clock);
  pinned_use_.End([this](const PinnedUse::Use& use) { return order_.HostKnows(use.agent, use.index); });
}

void Driver::OnHostAccess(uintptr_t address, bool writes, void* instruction) {
  std::lock_guard lock(mutex_);
  const auto disturbed = pinned_use_.Touch(address, writes);
  if (!disturbed.has_value()) return;
  char function[256] = "a function";
  absl::Symbolize(instruction, function, sizeof(function));
  reports_.Add(ReportKind::kHostAccess,
               absl::StrCat("host code in ", function, writes ? " writes " : " reads ", NameOf({address, address + 1}),
                            " before it has seen that ", log_.Describe(disturbed->call), ", which ",
                            disturbed->writes ? "writes" : "reads", " it, has ended"));
}

void Driver::Access(const Stream& stream, const std::vector<LaunchRegion>& regions, bool writes, uint32_t call,
                    std::vector<OrderCheck::Finding>* findings) {
  const int agent = AgentOf(stream);
  for (const LaunchRegion& region : regions) {
    if (region.data == nullptr || region.bytes == 0) continue;
    for (int64_t row = 0; row < region.rows; ++row) {
      const uintptr_t at = reinterpret_cast<uintptr_t>(region.data) + row * region.stride;
      const OrderCheck::Bytes bytes = {at, at + static_cast<uintptr_t>(region.bytes)};
      order_.Access(agent, bytes, writes, call, findings);
      if (IsPinned(region.data)) pinned_use_.Begin({bytes, writes, agent, order_.Of(agent).Of(agent), call});
    }
  }
}

cudaError_t Driver::IssueForLibrary(const Caller& caller, cudaStream_t stream, const std::vector<LaunchRegion>& reads,
                                    const std::vector<LaunchRegion>& writes, std::string what, Command command) {
  std::lock_guard lock(mutex_);
  Stream* on = Find(caller, stream);
  if (on == nullptr || on->device != command.device) return cudaErrorInvalidResourceHandle;
  if (!CheckRegions(caller, on->device, reads) || !CheckRegions(caller, on->device, writes)) {
    return cudaErrorIllegalAddress;
  }
  Issue(caller, on, reads, writes, std::move(command));
  library_calls_[log_.last()] = std::move(what);
  return cudaSuccess;
}

void Driver::ReportDeadlock(const std::vector<uint32_t>& calls) {
  std::lock_guard lock(mutex_);
  std::string text = "deadlock: each of these waits for the next, and the last for the first:";
  for (const uint32_t call : calls) {
    const auto what = library_calls_.find(call);
    absl::StrAppend(&text, "\n  ", log_.Describe(call), what != library_calls_.end() ? ": " : "",
                    what != library_calls_.end() ? what->second : "");
  }
  reports_.Add(ReportKind::kDeadlock, std::move(text));
}

void Driver::Issue(const Caller& caller, Stream* stream, const std::vector<LaunchRegion>& reads,
                   const std::vector<LaunchRegion>& writes, Command command) {
  const uint32_t call = log_.Add(caller.name, caller.site, stream->device, stream->number,
                                 {.return_address = caller.return_address, .depth = options_.stack_depth});
  std::vector<OrderCheck::Finding> findings;
  order_.Begin(AgentOf(*stream));
  Access(*stream, reads, /*writes=*/false, call, &findings);
  Access(*stream, writes, /*writes=*/true, call, &findings);
  ReportFindings(call, findings);
  if (const Fault* fault = NextFault(caller.name, Fault::Where::kExecution)) {
    command.effect = [error = fault->error] { return error; };
  } else if (!writes.empty()) {
    command.effect = [effect = std::move(command.effect), writes] {
      const cudaError_t error = effect();
      for (const LaunchRegion& region : writes) MarkWritten(region);
      return error;
    };
  }
  command.device = stream->device;
  command.call = call;
  if (command.completion == nullptr) command.completion = std::make_shared<Completion>();
  execution_->Issue(stream->number, std::move(command));
}

}  // namespace gpu_sim
