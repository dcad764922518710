#include "tests/sim/test_device.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace sluice {
namespace {

#define NOT_IN_THIS_DEVICE \
  override { CHECK(false) << "the test device has no such operation"; }

class TestOperations final : public Operations {
 public:
  int64_t PackedLinearBytes(const LinearShape&) const override { return 0; }
  void PackLinear(Stream&, const LinearShape&, TensorView, TensorView) const NOT_IN_THIS_DEVICE;
  void LinearForward(Stream&, const LinearForwardArgs&) const NOT_IN_THIS_DEVICE;
  void LinearInputGradient(Stream&, const LinearInputGradientArgs&) const NOT_IN_THIS_DEVICE;
  void LinearWeightGradient(Stream&, const LinearWeightGradientArgs&) const NOT_IN_THIS_DEVICE;
  void NormForward(Stream&, const NormForwardArgs&) const NOT_IN_THIS_DEVICE;
  void NormInputGradient(Stream&, const NormInputGradientArgs&) const NOT_IN_THIS_DEVICE;
  void NormWeightGradient(Stream&, const NormWeightGradientArgs&) const NOT_IN_THIS_DEVICE;
  void AttentionForward(Stream&, const AttentionForwardArgs&) const NOT_IN_THIS_DEVICE;
  void AttentionBackward(Stream&, const AttentionBackwardArgs&) const NOT_IN_THIS_DEVICE;
  int64_t KeyValueCacheBytes(const CacheShape&) const override { return 0; }
  void CachedAttention(Stream&, const CachedAttentionArgs&) const NOT_IN_THIS_DEVICE;
  void Rope(Stream&, const RopeArgs&) const NOT_IN_THIS_DEVICE;
  void GeluForward(Stream&, const GeluForwardArgs&) const NOT_IN_THIS_DEVICE;
  void GeluBackward(Stream&, const GeluBackwardArgs&) const NOT_IN_THIS_DEVICE;
  void SwigluForward(Stream&, const SwigluForwardArgs&) const NOT_IN_THIS_DEVICE;
  void SwigluBackward(Stream&, const SwigluBackwardArgs&) const NOT_IN_THIS_DEVICE;
  void Dropout(Stream&, const DropoutArgs&) const NOT_IN_THIS_DEVICE;
  void Add(Stream&, const AddArgs&) const NOT_IN_THIS_DEVICE;
  void EmbeddingForward(Stream&, const EmbeddingForwardArgs&) const NOT_IN_THIS_DEVICE;
  void EmbeddingGradient(Stream&, const EmbeddingGradientArgs&) const NOT_IN_THIS_DEVICE;
  void CrossEntropy(Stream&, const CrossEntropyArgs&) const NOT_IN_THIS_DEVICE;
  void LogitStatistics(Stream&, const LogitStatisticsArgs&) const NOT_IN_THIS_DEVICE;
  void SampleTokens(Stream&, const SampleTokensArgs&) const NOT_IN_THIS_DEVICE;
  void SumInOrder(Stream&, absl::Span<const TensorView>, TensorView) const NOT_IN_THIS_DEVICE;
  void SquaredNorm(Stream&, TensorView, TensorView) const NOT_IN_THIS_DEVICE;
  void AdamW(Stream&, const AdamWArgs&) const NOT_IN_THIS_DEVICE;
  void Fill(Stream&, TensorView, float) const NOT_IN_THIS_DEVICE;
  void Hash(Stream&, TensorView, TensorView) const NOT_IN_THIS_DEVICE;
  void InitNormal(Stream&, const InitNormalArgs&) const NOT_IN_THIS_DEVICE;

  void DecideStep(Stream& stream, TensorView partials, float max_norm, TensorView control) const override {
    static_cast<TestStream&>(stream).Run([=](World*) {
      float sum = 0;
      for (int64_t i = 0; i < partials.elements(); ++i) sum += partials.as<float>()[i];
      StepControl decision{.norm = std::sqrt(sum)};
      if (!std::isfinite(sum)) decision.skip = 1;
      if (max_norm > 0 && decision.norm > max_norm) decision.scale = max_norm / decision.norm;
      std::memcpy(control.data, &decision, sizeof(decision));
      return absl::OkStatus();
    });
  }
  void GuessStep(Stream& stream, TensorView control, TensorView guess) const override {
    static_cast<TestStream&>(stream).Run([=](World*) {
      StepControl decision;
      std::memcpy(&decision, control.data, sizeof(decision));
      if (decision.scale != 1) decision.skip = 1;
      std::memcpy(guess.data, &decision, sizeof(decision));
      return absl::OkStatus();
    });
  }
  void Copy(Stream& stream, TensorView source, TensorView target) const override {
    static_cast<TestStream&>(stream).Run([=](World*) {
      std::memcpy(target.data, source.data, source.bytes());
      return absl::OkStatus();
    });
  }
};

}  // namespace

TestStream::TestStream(World* world, absl::string_view name) : world_(world) {
  issued_.reserve(1024);
  running_.reserve(1024);
  task_ = world->Spawn({.name = std::string(name)}, [this] { RunCommands(); });
}

TestStream::~TestStream() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  bell_.Ring(world_->Now());
  CHECK_OK(world_->Wait(task_));
}

void TestStream::Wait(const EventRef& event) {
  Command command;
  command.wait = event;
  Issue(std::move(command));
}

EventRef TestStream::Record() {
  Command command;
  command.record = signals_->Take();
  EventRef recorded = command.record;
  Issue(std::move(command));
  return recorded;
}

EventRef TestStream::Fork() {
  Command command;
  command.record = signals_->Take();
  command.inside = true;
  EventRef recorded = command.record;
  Issue(std::move(command));
  return recorded;
}

void TestStream::Join(const EventRef& event) {
  Command command;
  command.wait = event;
  command.inside = true;
  Issue(std::move(command));
}

void TestStream::Drain() {
  const EventRef rest = Record();
  world_->WaitAny({&rest, 1}, kForever);
}

void TestStream::CopyToDevice(const void* host, TensorView device) {
  if (device.bytes() == 0) return;
  Run([=](World*) {
    std::memcpy(device.data, host, device.bytes());
    return absl::OkStatus();
  });
}

void TestStream::CopyToHost(TensorView device, void* host) {
  if (device.bytes() == 0) return;
  Run([=](World*) {
    std::memcpy(host, device.data, device.bytes());
    return absl::OkStatus();
  });
}

void TestStream::Issue(Command command) {
  {
    std::lock_guard lock(mutex_);
    issued_.push_back(std::move(command));
  }
  bell_.Ring(world_->Now());
}

void TestStream::RunCommands() {
  for (;;) {
    const EventRef rung = bell_.Arm();
    bool closing = false;
    {
      std::lock_guard lock(mutex_);
      running_.swap(issued_);
      closing = closing_;
    }
    for (Command& command : running_) Execute(command);
    if (running_.empty()) {
      if (closing) return;
      world_->WaitAny({&rung, 1}, kForever);
    }
    running_.clear();
  }
}

void TestStream::Execute(Command& command) {
  if (status_.ok() && aborted_->Done()) status_ = aborted_->status();
  if (command.record) {
    const Nanoseconds now = world_->Now();
    command.record->Set(status_, std::min(now, command.inside ? work_began_ : std::exchange(work_began_, kForever)),
                        now);
  } else if (command.wait) {
    const EventRef events[] = {command.wait, aborted_};
    if (status_.ok()) status_ = events[*world_->WaitAny(events, kForever)]->status();
    if (!command.inside) work_began_ = kForever;
  } else if (status_.ok()) {
    work_began_ = std::min(work_began_, world_->Now());
    status_ = command.run(command.body, world_);
  }
}

TestDevice::TestDevice(World* world, const TestDeviceOptions& options)
    : world_(world), options_(options), operations_(std::make_unique<TestOperations>()) {}

TestDevice::~TestDevice() { CHECK_EQ(memory_.bytes, 0) << "buffers outlive their device"; }

absl::StatusOr<Buffer> TestDevice::Allocate(int64_t bytes, absl::string_view purpose) {
  std::lock_guard lock(mutex_);
  if (options_.memory_limit_bytes > 0 && memory_.bytes + bytes > options_.memory_limit_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", purpose, ": ", bytes, " bytes asked for, ",
                                                     memory_.bytes, " held, ", options_.memory_limit_bytes,
                                                     " allowed"));
  }
  const size_t rounded = (static_cast<size_t>(bytes) + 63) / 64 * 64 + 64;
  void* memory = std::aligned_alloc(64, rounded);
  CHECK(memory != nullptr);
  std::memset(memory, 0, rounded);
  memory_.bytes += bytes;
  memory_.peak_bytes = std::max(memory_.peak_bytes, memory_.bytes);
  ++memory_.allocations;
  return Buffer(this, static_cast<std::byte*>(memory), bytes);
}

std::unique_ptr<Stream> TestDevice::NewStream(absl::string_view name) {
  return std::make_unique<TestStream>(world_, name);
}

MemoryUse TestDevice::memory() const {
  std::lock_guard lock(mutex_);
  return memory_;
}

void TestDevice::Free(std::byte* data, int64_t bytes) {
  std::free(data);
  std::lock_guard lock(mutex_);
  memory_.bytes -= bytes;
}

}  // namespace sluice
