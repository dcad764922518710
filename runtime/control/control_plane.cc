#include "runtime/control/control_plane.h"

#include <unistd.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "runtime/control/client_shell.h"
#include "runtime/control/server_shell.h"

namespace sluice {
namespace {

namespace asio = boost::asio;

// What is open is closed within this time; then it is cut.
constexpr Nanoseconds kShutdownLimit = 5 * kSecond;

absl::Status CheckOptions(const JoinOptions& options) {
  if (options.token.empty()) {
    return absl::InvalidArgumentError("a job of several processes needs a token, the same for all");
  }
  if (options.processes < 1 || options.process < 0 || options.process >= options.processes) {
    return absl::InvalidArgumentError(
        absl::StrCat("process ", options.process, " of ", options.processes, ": they count from 0"));
  }
  if (options.world_size < options.processes) {
    return absl::InvalidArgumentError(absl::StrCat(options.processes, " processes for ", options.world_size,
                                                   " ranks: each process hosts one at least"));
  }
  if (options.process > 0 && options.port == 0) {
    return absl::InvalidArgumentError("the port of process 0 must be given to the other processes");
  }
  return CheckLimits(options.limits);
}

ProcessIdentity IdentityOf(World* world, const JoinOptions& options) {
  return {.process = options.process,
          .ranks = options.ranks,
          .host = options.host_name,
          .process_id = getpid(),
          .instance = world->Random(),
          .fingerprints = options.fingerprints};
}

int64_t BytesOf(const std::string& item) { return static_cast<int64_t>(item.size()); }
int64_t BytesOf(const ControlPlane::ProcessReport& item) { return BytesOf(item.bytes); }

std::string HostText(const std::string& host, uint16_t port) { return absl::StrCat(host, ":", port); }

}  // namespace

class ControlPlane::Impl {
 public:
  Impl(World* world, JoinOptions options)
      : world_(world), options_(std::move(options)), work_(context_.get_executor()) {}
  ~Impl() { Shutdown(); }

  absl::Status Join();
  absl::Status Leave(Nanoseconds deadline);
  void Abort(const absl::Status& cause);

  absl::StatusOr<std::vector<std::string>> ExchangeBlobs(const std::string& name, std::string mine);
  absl::Status Broadcast(std::string bytes);
  absl::Status Report(std::string bytes);
  absl::StatusOr<std::string> NextBroadcast(Nanoseconds deadline) { return Next<std::string>(&broadcasts_, deadline); }
  absl::StatusOr<ProcessReport> NextReport(Nanoseconds deadline) { return Next<ProcessReport>(&reports_, deadline); }

  const EventRef& cause() const { return cause_event_; }
  ClockOffset clock_offset();
  void SetMoves(std::function<uint64_t()> moves);
  uint64_t job_moves();

 private:
  absl::StatusOr<ControlClient::Target> StartServer(const ProcessIdentity& self);
  void Shutdown();
  bool has_ended();

  // On the control thread.
  uint64_t AskMoves();
  void TakeFromServer(ControlOutput& output);
  void TakeFromClient(ControlOutput& output);
  void End(const absl::Status& status);
  template <class Item>
  void Queue(std::deque<Item>* queue, Item item);

  // Runs `call` on the control thread and waits for what it returns.
  template <class Call>
  auto OnControlThread(Call call);
  // Waits until `take`, called with the lock held, returns something; or until the job has ended or the deadline
  // passed. It is called again when something has changed, and when `other` is done.
  template <class Result, class Take>
  absl::StatusOr<Result> WaitFor(Nanoseconds deadline, Take take, const EventRef& other = nullptr);
  template <class Item>
  absl::StatusOr<Item> Next(std::deque<Item>* queue, Nanoseconds deadline);
  // Wakes who waits for something to change. REQUIRES: lock held.
  void NotifyLocked();

  World* const world_;
  const JoinOptions options_;
  asio::io_context context_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::unique_ptr<ControlServer> server_;  // process 0
  std::unique_ptr<ControlClient> client_;
  EventRef thread_;

  const Ref<Signal> cause_ = MakeRef<Signal>();
  const EventRef cause_event_ = cause_;
  std::mutex mutex_;
  Ref<Signal> changed_ = MakeRef<Signal>();
  bool started_ = false;
  std::optional<absl::Status> ended_;
  std::deque<std::string> broadcasts_;
  std::deque<ProcessReport> reports_;
  std::map<std::string, std::vector<std::string>> blobs_;
  int64_t queue_bytes_ = 0;  // of broadcasts_ and reports_
  std::mutex moves_mutex_;   // held while it is asked: nobody is asked after SetMoves()
  std::function<uint64_t()> moves_;
};

absl::Status ControlPlane::Impl::Join() {
  RETURN_IF_ERROR(CheckOptions(options_));
  const ProcessIdentity self = IdentityOf(world_, options_);
  RETURN_IF_ERROR(Annotate(CheckFrameFits(HelloFrame(self, options_.token), options_.limits.hello_bytes),
                           "ranks and fingerprints of this process"));
  ControlClient::Target target{.host = options_.host, .port = options_.port};
  if (options_.process == 0) {
    ASSIGN_OR_RETURN(target, StartServer(self));
  }
  client_ = std::make_unique<ControlClient>(world_, &context_, target,
                                            Member::Options{.self = self,
                                                            .token = options_.token,
                                                            .coordinator = HostText(target.host, target.port),
                                                            .limits = options_.limits,
                                                            .moves = [this] { return AskMoves(); }},
                                            [this](ControlOutput& output) { TakeFromClient(output); });
  asio::post(context_, [this] { client_->Start(); });
  thread_ = world_->Spawn({.name = "control"}, [this] { context_.run(); });
  const EventRef& cancel = options_.cancel;
  const auto joined_or_cancelled = [&]() -> std::optional<bool> {
    const bool done = started_ || (cancel && cancel->Done());
    return done ? std::make_optional(started_) : std::nullopt;
  };
  const absl::StatusOr<bool> joined = WaitFor<bool>(kForever, joined_or_cancelled, cancel);
  if (!joined.ok() || *joined) return joined.status();
  return cancel->status().ok() ? absl::CancelledError("joining was given up") : cancel->status();
}

absl::StatusOr<ControlClient::Target> ControlPlane::Impl::StartServer(const ProcessIdentity& self) {
  Coordinator::Options options{.roll = {.processes = options_.processes,
                                        .world_size = options_.world_size,
                                        .instance = self.instance,
                                        .fingerprints = options_.fingerprints},
                               .token = options_.token,
                               .limits = options_.limits};
  server_ = std::make_unique<ControlServer>(world_, &context_, std::move(options),
                                            [this](ControlOutput& output) { TakeFromServer(output); });
  ASSIGN_OR_RETURN(const asio::ip::tcp::endpoint listens, server_->Listen(options_.bind, options_.port));
  if (options_.on_listening) options_.on_listening(listens.port());
  const asio::ip::address address = listens.address();
  if (!address.is_unspecified()) return ControlClient::Target{address.to_string(), listens.port()};
  return ControlClient::Target{address.is_v6() ? "::1" : "127.0.0.1", listens.port()};
}

void ControlPlane::Impl::Shutdown() {
  if (thread_ && !has_ended()) {
    Abort(absl::CancelledError("it went without leaving the job"));
    WaitFor<bool>(world_->Now() + options_.limits.abort + kShutdownLimit, [] { return std::optional<bool>(); })
        .status()
        .IgnoreError();
  }
  asio::post(context_, [this] {
    if (server_ != nullptr) server_->Shutdown();
  });
  work_.reset();
  if (!thread_) return;
  if (!world_->WaitAny({&thread_, 1}, world_->Now() + kShutdownLimit)) context_.stop();
  world_->Wait(thread_).IgnoreError();
}

bool ControlPlane::Impl::has_ended() {
  std::lock_guard lock(mutex_);
  return ended_.has_value();
}

void ControlPlane::Impl::TakeFromServer(ControlOutput& output) {
  if (auto* report = std::get_if<ReportArrived>(&output)) {
    Queue(&reports_, ProcessReport{report->process, std::move(report->bytes)});
  } else if (auto* ended = std::get_if<Ended>(&output)) {
    if (!ended->status.ok()) End(ended->status);
  } else if (auto* note = std::get_if<Note>(&output)) {
    if (options_.on_note) options_.on_note(note->text);
  }
}

void ControlPlane::Impl::TakeFromClient(ControlOutput& output) {
  if (auto* broadcast = std::get_if<BroadcastArrived>(&output)) {
    return Queue(&broadcasts_, std::move(broadcast->bytes));
  }
  if (auto* ended = std::get_if<Ended>(&output)) {
    // The coordinator knows the first cause; it may not have heard of this one, nor ever do.
    if (server_ != nullptr && !ended->status.ok()) {
      server_->Abort(Annotate(ended->status, ProcessName(0, options_.host_name, options_.ranks)));
    }
    return End(ended->status);
  }
  std::lock_guard lock(mutex_);
  if (auto* arrived = std::get_if<BlobsArrived>(&output)) {
    blobs_[arrived->name] = std::move(arrived->blobs);
  } else if (std::holds_alternative<Started>(output)) {
    started_ = true;
  }
  NotifyLocked();
}

void ControlPlane::Impl::End(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  if (ended_.has_value()) return;
  ended_ = status;
  if (!status.ok()) cause_->Set(status, world_->Now());
  NotifyLocked();
}

template <class Item>
void ControlPlane::Impl::Queue(std::deque<Item>* queue, Item item) {
  std::lock_guard lock(mutex_);
  queue_bytes_ += BytesOf(item);
  queue->push_back(std::move(item));
  NotifyLocked();
  if (queue_bytes_ <= options_.limits.queue_bytes) return;
  Abort(absl::ResourceExhaustedError(
      absl::StrCat(queue_bytes_, " bytes of control messages have come, and are not taken by the program")));
}

void ControlPlane::Impl::NotifyLocked() {
  std::exchange(changed_, MakeRef<Signal>())->Set(absl::OkStatus(), world_->Now());
}

template <class Call>
auto ControlPlane::Impl::OnControlThread(Call call) {
  std::optional<decltype(call())> result;
  const Ref<Signal> done = MakeRef<Signal>();
  // The signal is the post's too: whoever waits may be gone while Set() returns.
  asio::post(context_, [this, &result, &call, done] {
    result = call();
    done->Set(absl::OkStatus(), world_->Now());
  });
  CHECK_OK(world_->Wait(done));
  return *std::move(result);
}

template <class Result, class Take>
absl::StatusOr<Result> ControlPlane::Impl::WaitFor(Nanoseconds deadline, Take take, const EventRef& other) {
  for (bool late = false;; late = world_->Now() >= deadline) {
    EventRef changed;
    {
      std::lock_guard lock(mutex_);
      if (std::optional<Result> result = take()) return *std::move(result);
      if (ended_.has_value()) {
        return ended_->ok() ? absl::FailedPreconditionError("all processes have left the job") : *ended_;
      }
      changed = changed_;
    }
    if (late) return absl::DeadlineExceededError("nothing came within the deadline");
    const EventRef events[] = {changed, other};
    world_->WaitAny(absl::MakeConstSpan(events, other ? 2 : 1), deadline);
  }
}

template <class Item>
absl::StatusOr<Item> ControlPlane::Impl::Next(std::deque<Item>* queue, Nanoseconds deadline) {
  return WaitFor<Item>(deadline, [&]() -> std::optional<Item> {
    if (queue->empty()) return std::nullopt;
    Item item = std::move(queue->front());
    queue->pop_front();
    queue_bytes_ -= BytesOf(item);
    return item;
  });
}

absl::StatusOr<std::vector<std::string>> ControlPlane::Impl::ExchangeBlobs(const std::string& name, std::string mine) {
  RETURN_IF_ERROR(OnControlThread([&] { return client_->SendBlob(name, std::move(mine)); }));
  return WaitFor<std::vector<std::string>>(kForever, [&]() -> std::optional<std::vector<std::string>> {
    auto found = blobs_.extract(name);
    if (found.empty()) return std::nullopt;
    return std::move(found.mapped());
  });
}

absl::Status ControlPlane::Impl::Broadcast(std::string bytes) {
  CHECK(server_ != nullptr) << "only process 0 broadcasts";
  return OnControlThread([&] { return server_->Broadcast(std::move(bytes)); });
}

absl::Status ControlPlane::Impl::Report(std::string bytes) {
  return OnControlThread([&] { return client_->Report(std::move(bytes)); });
}

void ControlPlane::Impl::Abort(const absl::Status& cause) {
  asio::post(context_, [this, cause] { client_->Abort(cause); });
}

ClockOffset ControlPlane::Impl::clock_offset() {
  return OnControlThread([&] { return client_->clock_offset(); });
}

void ControlPlane::Impl::SetMoves(std::function<uint64_t()> moves) {
  std::lock_guard lock(moves_mutex_);
  moves_ = std::move(moves);
}

uint64_t ControlPlane::Impl::job_moves() {
  return OnControlThread([&] { return client_->job_moves(); });
}

uint64_t ControlPlane::Impl::AskMoves() {
  std::lock_guard lock(moves_mutex_);
  return moves_ ? moves_() : 0;
}

absl::Status ControlPlane::Impl::Leave(Nanoseconds deadline) {
  RETURN_IF_ERROR(OnControlThread([&] { return client_->Leave(); }));
  return WaitFor<bool>(deadline,
                       [this]() -> std::optional<bool> {
                         return ended_.has_value() && ended_->ok() ? std::make_optional(true) : std::nullopt;
                       })
      .status();
}

ControlPlane::ControlPlane(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ControlPlane::~ControlPlane() = default;

absl::StatusOr<std::unique_ptr<ControlPlane>> ControlPlane::Join(World* world, JoinOptions options) {
  auto impl = std::make_unique<Impl>(world, std::move(options));
  RETURN_IF_ERROR(impl->Join());
  return std::unique_ptr<ControlPlane>(new ControlPlane(std::move(impl)));
}

absl::StatusOr<std::vector<std::string>> ControlPlane::ExchangeBlobs(const std::string& name, std::string mine) {
  return impl_->ExchangeBlobs(name, std::move(mine));
}
absl::Status ControlPlane::Broadcast(std::string bytes) { return impl_->Broadcast(std::move(bytes)); }
absl::StatusOr<std::string> ControlPlane::NextBroadcast(Nanoseconds deadline) { return impl_->NextBroadcast(deadline); }
absl::Status ControlPlane::Report(std::string bytes) { return impl_->Report(std::move(bytes)); }
absl::StatusOr<ControlPlane::ProcessReport> ControlPlane::NextReport(Nanoseconds deadline) {
  return impl_->NextReport(deadline);
}
void ControlPlane::Abort(const absl::Status& cause) { impl_->Abort(cause); }
const EventRef& ControlPlane::cause() const { return impl_->cause(); }
ClockOffset ControlPlane::clock_offset() const { return impl_->clock_offset(); }
void ControlPlane::SetMoves(std::function<uint64_t()> moves) { impl_->SetMoves(std::move(moves)); }
uint64_t ControlPlane::job_moves() const { return impl_->job_moves(); }
absl::Status ControlPlane::Leave(Nanoseconds deadline) { return impl_->Leave(deadline); }

}  // namespace sluice
