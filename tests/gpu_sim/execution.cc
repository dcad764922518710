#include "tests/gpu_sim/execution.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>

#include "base/check.h"
#include "base/philox.h"

namespace gpu_sim {

using sluice::kForever;
using sluice::MixBits;

namespace {

bool IsGivenUp(const Command& command) { return command.given_up != nullptr && command.given_up->at != kForever; }

// What of the command has not happened never does.
void BreakExchanges(const Command& command) {
  for (const ExchangeRef& exchange : command.exchanges) exchange->broken |= !exchange->happened;
}

}  // namespace

struct Execution::Stream {
  int number = 0;
  std::deque<Queued> queue;  // its head runs, or is the next to run
  bool running = false;
  Nanoseconds until = 0;  // when what runs ends, or the last one ended
  CompletionRef last;     // of the youngest command that has one
};

Execution::Execution(const Options& options, Listeners listeners)
    : options_(options), listeners_(std::move(listeners)), random_state_(MixBits(options.seed)) {
  wake_ = sluice::MakeRef<sluice::Signal>();
  task_ = options_.world->Spawn({.name = "simulated GPU", .processors = {}}, [this] { Run(); });
}

Execution::~Execution() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  Wake(options_.world->Now());
  CHECK_OK(options_.world->Wait(task_));
}

int Execution::NewEngine() {
  std::lock_guard lock(mutex_);
  engine_free_at_.push_back(0);
  return static_cast<int>(engine_free_at_.size()) - 1;
}

int Execution::NewStream() {
  std::lock_guard lock(mutex_);
  streams_.push_back(std::make_unique<Stream>());
  return streams_.back()->number = static_cast<int>(streams_.size()) - 1;
}

void Execution::Issue(int stream, Command command) {
  const Nanoseconds now = options_.world->Now();
  {
    std::lock_guard lock(mutex_);
    Stream* to = streams_[stream].get();
    if (command.completion != nullptr) {
      command.completion->stream = stream;
      to->last = command.completion;
    }
    for (const ExchangeRef& exchange : command.exchanges) exchange->parts.push_back({.stream = stream});
    const Nanoseconds not_before = now + Scaled(command.latency);
    to->queue.push_back({.command = std::move(command), .number = issued_++, .not_before = not_before});
  }
  Wake(now);
}

void Execution::Wake(Nanoseconds now) {
  sluice::Ref<sluice::Signal> wake;
  {
    std::lock_guard lock(mutex_);
    wake = std::exchange(wake_, nullptr);
  }
  if (wake != nullptr) wake->Set(absl::OkStatus(), now);
}

void Execution::Break(const ExchangeRef& exchange) {
  std::lock_guard lock(mutex_);
  exchange->broken = true;
}

void Execution::GiveUp(const std::shared_ptr<Cancellation>& cancellation) {
  const Nanoseconds now = options_.world->Now();
  {
    std::lock_guard lock(mutex_);
    cancellation->at = std::min(cancellation->at, now);
    for (const auto& stream : streams_) {
      for (const Queued& queued : stream->queue) {
        if (queued.command.given_up == cancellation) BreakExchanges(queued.command);
      }
    }
  }
  Wake(now);
}

bool Execution::IsDone(const Completion& completion) const {
  std::lock_guard lock(mutex_);
  return completion.done;
}

CompletionRef Execution::EndOf(int stream) const {
  std::lock_guard lock(mutex_);
  return streams_[stream]->last;
}

cudaError_t Execution::WaitFor(const CompletionRef& completion) {
  sluice::EventRef signal;
  {
    std::lock_guard lock(mutex_);
    if (completion->done) return completion->error;
    if (completion->signal == nullptr) completion->signal = sluice::MakeRef<sluice::Signal>();
    signal = completion->signal;
  }
  CHECK_OK(options_.world->Wait(signal));
  std::lock_guard lock(mutex_);
  return completion->error;
}

uint64_t Execution::trace_hash() const {
  std::lock_guard lock(mutex_);
  return trace_hash_;
}

uint64_t Execution::NextRandom() { return MixBits(random_state_ += 0x9E3779B97F4A7C15u); }

// An eighth to eight times.
Nanoseconds Execution::Scaled(Nanoseconds duration) {
  if (options_.timing == Timing::kModelled) return duration;
  if (options_.timing == Timing::kNone || duration == 0) return 0;
  const double power = static_cast<double>(NextRandom() >> 11) * 0x1p-53 * 6 - 3;
  return std::max<Nanoseconds>(1, std::llround(static_cast<double>(duration) * std::exp2(power)));
}

void Execution::Run() {
  for (;;) {
    sluice::EventRef wake;
    bool closing;
    {
      std::lock_guard lock(mutex_);
      if (wake_ == nullptr) wake_ = sluice::MakeRef<sluice::Signal>();
      wake = wake_;
      closing = closing_;
    }
    const Nanoseconds next = Advance(options_.world->Now());
    if (next == kForever) LookForDeadlock();
    if (closing && next == kForever) return;
    options_.world->WaitAny({&wake, 1}, next);
  }
}

Nanoseconds Execution::Advance(Nanoseconds now) {
  std::unique_lock lock(mutex_);
  for (;;) {
    Stream* ends = FirstToEnd();
    Stream* starts = FirstToStart();
    const Nanoseconds end = ends != nullptr ? EndOf(*ends) : kForever;
    const Nanoseconds start = starts != nullptr ? StartOf(*starts) : kForever;
    if (std::min(end, start) > now) return std::min(end, start);
    if (end <= start) {
      Finish(ends, lock);
    } else {
      Start(starts);
    }
  }
}

// When the stream's head can start, as far as is known.
Nanoseconds Execution::StartOf(const Stream& stream) const {
  if (stream.running || stream.queue.empty()) return kForever;
  const Queued& head = stream.queue.front();
  Nanoseconds start = std::max(stream.until, head.not_before);
  if (head.command.engine != Command::kNoEngine) start = std::max(start, engine_free_at_[head.command.engine]);
  if (const Completion* waits_for = head.command.waits_for.get()) {
    if (!waits_for->done) return kForever;
    start = std::max(start, waits_for->ended);
  }
  return start;
}

cudaError_t Execution::ErrorOf(int device) const {
  return device < static_cast<int>(device_errors_.size()) ? device_errors_[device] : cudaSuccess;
}

Nanoseconds Execution::EndOf(const Stream& stream) const {
  const Command& command = stream.queue.front().command;
  if (ErrorOf(command.device) != cudaSuccess) return stream.until;
  if (IsGivenUp(command)) return std::max(stream.until, command.given_up->at);
  Nanoseconds end = stream.until;
  for (const ExchangeRef& exchange : command.exchanges) {
    end = std::max(end, exchange->broken && !exchange->happened ? kForever : exchange->ends);
  }
  return end;
}

// The earliest; of several, what the seed or the order of issue says.
Execution::Stream* Execution::FirstToStart() {
  Stream* first = nullptr;
  Nanoseconds best = kForever;
  uint64_t candidates = 0;
  for (const auto& stream : streams_) {
    const Nanoseconds start = StartOf(*stream);
    if (start == kForever || start > best) continue;
    if (start < best) candidates = 0;
    best = start;
    ++candidates;
    const bool chosen = candidates == 1 || (options_.timing == Timing::kModelled
                                                ? stream->queue.front().number < first->queue.front().number
                                                : NextRandom() % candidates == 0);
    if (chosen) first = stream.get();
  }
  return first;
}

Execution::Stream* Execution::FirstToEnd() {
  Stream* first = nullptr;
  Nanoseconds best = kForever;
  uint64_t candidates = 0;
  for (const auto& stream : streams_) {
    const Nanoseconds end = stream->running ? EndOf(*stream) : kForever;
    if (end == kForever || end > best) continue;
    if (end < best) candidates = 0;
    best = end;
    if (NextRandom() % ++candidates == 0) first = stream.get();
  }
  return first;
}

void Execution::Start(Stream* stream) {
  const Nanoseconds start = StartOf(*stream);
  const Command& command = stream->queue.front().command;
  stream->running = true;
  stream->until = start + Scaled(command.duration);
  if (command.engine != Command::kNoEngine) engine_free_at_[command.engine] = stream->until;
  for (const ExchangeRef& exchange : command.exchanges) Arrive(stream->number, exchange.get(), stream->until);
}

void Execution::Arrive(int stream, Exchange* exchange, Nanoseconds now) {
  size_t arrived = 0;
  bool found = false;
  for (Exchange::Part& part : exchange->parts) {
    if (!found && !part.arrived && part.stream == stream) part.arrived = found = true;
    arrived += part.arrived;
  }
  if (arrived == exchange->parts_expected) exchange->ends = now + Scaled(exchange->duration);
}

void Execution::Finish(Stream* stream, std::unique_lock<std::mutex>& lock) {
  // The slot stays in the queue, so that the stream starts nothing while the effect runs without the lock.
  Queued& head = stream->queue.front();
  const int device = head.command.device;
  if (device >= static_cast<int>(device_errors_.size())) device_errors_.resize(device + 1, cudaSuccess);
  cudaError_t error = device_errors_[device];
  stream->until = EndOf(*stream);
  if (error != cudaSuccess) BreakExchanges(head.command);
  for (const ExchangeRef& exchange : head.command.exchanges) {
    if (exchange->broken || std::exchange(exchange->happened, true)) continue;
    lock.unlock();
    exchange->effect();
    lock.lock();
  }
  if (error == cudaSuccess && head.command.effect != nullptr) {
    lock.unlock();
    error = head.command.effect();
    if (error != cudaSuccess) listeners_.on_failure(device, error);
    lock.lock();
    device_errors_[device] = error;
  }
  trace_hash_ = MixBits(trace_hash_ ^ MixBits(head.number * 0x10001 + static_cast<uint64_t>(stream->until)));
  if (head.command.completion != nullptr) Complete(head.command.completion, error, stream->until);
  stream->queue.pop_front();
  stream->running = false;
}

void Execution::Complete(const CompletionRef& completion, cudaError_t error, Nanoseconds when) {
  completion->done = true;
  completion->error = error;
  completion->ended = when;
  if (completion->signal != nullptr) completion->signal->Set(absl::OkStatus(), when);
}

std::vector<int> Execution::BlockersOf(int stream) const {
  const Stream& waits = *streams_[stream];
  if (waits.queue.empty()) return {};
  const Command& head = waits.queue.front().command;
  if (!waits.running) {
    if (head.waits_for == nullptr || head.waits_for->done) return {};
    return {head.waits_for->stream};
  }
  std::vector<int> blockers;
  for (const ExchangeRef& exchange : head.exchanges) {
    if (exchange->broken) continue;
    for (const Exchange::Part& part : exchange->parts) {
      if (!part.arrived) blockers.push_back(part.stream);
    }
  }
  return blockers;
}

// Nothing can go on by itself. Commands that wait for what nobody has issued may still be helped; a circle never is.
void Execution::LookForDeadlock() {
  enum class Seen : uint8_t { kNo, kOnPath, kDone };
  std::vector<uint32_t> circle;
  {
    std::lock_guard lock(mutex_);
    std::vector<Seen> seen(streams_.size(), Seen::kNo);
    std::vector<int> path;
    const std::function<bool(int)> visit = [&](int stream) {
      if (seen[stream] == Seen::kDone) return false;
      path.push_back(stream);
      if (std::exchange(seen[stream], Seen::kOnPath) == Seen::kOnPath) return true;
      for (const int blocker : BlockersOf(stream)) {
        if (visit(blocker)) return true;
      }
      seen[stream] = Seen::kDone;
      path.pop_back();
      return false;
    };
    bool found = false;
    for (size_t stream = 0; stream < streams_.size() && !found; ++stream) found = visit(static_cast<int>(stream));
    if (!found) return;
    // The path leads into the circle, whose first stream it names twice.
    for (auto at = std::find(path.begin(), path.end(), path.back()); at + 1 != path.end(); ++at) {
      circle.push_back(streams_[*at]->queue.front().command.call);
    }
  }
  listeners_.on_deadlock(circle);
}

}  // namespace gpu_sim
