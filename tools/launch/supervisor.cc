#include "tools/launch/supervisor.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace sluice::tools {
namespace {

constexpr size_t kCauseBytesMax = 2000;     // of what a child said last
constexpr size_t kDrainBytesMax = 4 << 20;  // of what stands in the pipe of a child that has ended

// What is there to be read, at most a piece. False: the end, and nothing will come.
bool ReadPiece(int file, std::string* bytes) {
  std::array<char, 16384> piece;
  const ssize_t got = read(file, piece.data(), piece.size());
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  bytes->assign(piece.data(), static_cast<size_t>(got));
  return got > 0;
}

std::string WordsOf(const siginfo_t& end) {
  if (end.si_code == CLD_EXITED) return absl::StrCat("failed with code ", end.si_status);
  return absl::StrCat("was ended by signal ", end.si_status, " (", strsignal(end.si_status), ")");
}

int CodeOf(const siginfo_t& end) { return end.si_code == CLD_EXITED ? end.si_status : 128 + end.si_status; }

bool IsIgnored(int signal) {
  struct sigaction action = {};
  sigaction(signal, nullptr, &action);
  return action.sa_handler == SIG_IGN;
}

}  // namespace

struct Supervisor::Stream {
  enum class Kind { kOutput, kError, kMore };
  Kind kind;
  File file;
  LineSplitter lines = {};
};

struct Supervisor::Running {
  SupervisedChild options;
  pid_t pid;  // -1: it has ended
  File input;
  std::array<Stream, 3> streams;
  std::string last_words = {};           // its last line of standard error
  Nanoseconds stopped_until = kForever;  // then it has been stopped for too long
};

// Waits for files, and calls what belongs to those that are ready.
class Supervisor::Poller {
 public:
  void Watch(int file, short events, std::function<void()> action) {
    files_.push_back({.fd = file, .events = events, .revents = 0});
    actions_.push_back(std::move(action));
  }
  void Wait(Nanoseconds longest) {
    const timespec time = {.tv_sec = longest / kSecond, .tv_nsec = longest % kSecond};
    if (ppoll(files_.data(), files_.size(), longest == kForever ? nullptr : &time, nullptr) <= 0) return;
    for (size_t i = 0; i < files_.size(); ++i) {
      if (files_[i].revents != 0) actions_[i]();
    }
  }

 private:
  std::vector<pollfd> files_;
  std::vector<std::function<void()>> actions_;
};

absl::StatusOr<std::unique_ptr<Supervisor>> Supervisor::Create(const World* world, SupervisorOptions options) {
  std::unique_ptr<Supervisor> supervisor(new Supervisor(world, std::move(options)));
  if (!supervisor->signal_file_.is_open()) return absl::ErrnoToStatus(errno, "cannot wait for signals");
  return supervisor;
}

Supervisor::Supervisor(const World* world, SupervisorOptions options)
    : world_(world), options_(std::move(options)), output_(options_.output), error_(options_.error) {
  // A redrawn line of progress may stand there; it comes again with the next step.
  if (isatty(options_.output) && isatty(options_.error)) clear_line_ = "\r\x1b[K";
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_DFL);
  sigemptyset(&signals_);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) {
    if (signal != SIGHUP || !IsIgnored(SIGHUP)) sigaddset(&signals_, signal);  // nohup's wish
  }
  sigprocmask(SIG_BLOCK, &signals_, &mask_before_);
  signal_file_ = File(signalfd(-1, &signals_, SFD_CLOEXEC | SFD_NONBLOCK));
}

Supervisor::~Supervisor() {
  KillAll();
  for (const auto& child : children_) {
    if (child->pid > 0) waitpid(child->pid, nullptr, 0);
  }
  sigprocmask(SIG_SETMASK, &mask_before_, nullptr);
}

bool Supervisor::Start(SupervisedChild options) {
  if (was_killed_) return false;
  absl::StatusOr<Child> child = StartChild(options.start);
  if (!child.ok()) {
    Fail(127, absl::StrCat(options.name, ": ", child.status().message()));
    return false;
  }
  ++alive_;
  children_.push_back(std::make_unique<Running>(
      Running{.options = std::move(options),
              .pid = child->pid,
              .input = std::move(child->input),
              .streams = {Stream{.kind = Stream::Kind::kOutput, .file = std::move(child->output)},
                          Stream{.kind = Stream::Kind::kError, .file = std::move(child->error)},
                          Stream{.kind = Stream::Kind::kMore, .file = std::move(child->more)}}}));
  return true;
}

absl::Status Supervisor::Tell(size_t child, absl::string_view text) {
  const File& input = children_[child]->input;
  if (write(input.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size())) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot write to ", children_[child]->options.name));
}

void Supervisor::Forward(int signal) {
  for (size_t i = 0; i < children_.size(); ++i) {
    const Running& child = *children_[i];
    if (child.pid < 0) continue;
    if (!child.options.signal_text) {
      SignalGroup(child.pid, signal);
    } else if (const absl::Status told = Tell(i, child.options.signal_text(signal)); !told.ok()) {
      SignalGroup(child.pid, SIGKILL);  // it doesn't listen, so it would never end
    }
  }
}

void Supervisor::KillAll() {
  was_killed_ = true;
  for (const auto& child : children_) {
    if (child->pid > 0) SignalGroup(child->pid, SIGKILL);
  }
}

void Supervisor::Fail(int code, std::string cause) {
  if (result_.code != 0) return;
  result_ = {.code = code, .cause = std::move(cause)};
  kill_at_ = std::min(kill_at_, world_->Now() + options_.grace);
}

SupervisionResult Supervisor::Run() {
  while (alive_ > 0) {
    Poller poller;
    Watch(&poller);
    const Nanoseconds deadline = NextDeadline();
    poller.Wait(deadline == kForever ? kForever : std::max<Nanoseconds>(0, deadline - world_->Now()));
    CheckDeadlines();
  }
  Flush();
  result_.was_signalled = was_signalled_;
  return result_;
}

void Supervisor::Watch(Poller* poller) {
  poller->Watch(signal_file_.get(), POLLIN, [this] { ReadSignals(); });
  if (options_.orders >= 0 && !orders_ended_) poller->Watch(options_.orders, POLLIN, [this] { ReadOrders(); });
  for (Outlet* outlet : {&output_, &error_}) {
    if (outlet->has_text()) poller->Watch(outlet->file(), POLLOUT, [outlet] { outlet->Write(); });
  }
  for (size_t i = 0; i < children_.size(); ++i) {
    for (Stream& stream : children_[i]->streams) {
      WatchStream(poller, i, &stream, stream.kind == Stream::Kind::kOutput ? output_ : error_);
    }
  }
}

void Supervisor::WatchStream(Poller* poller, size_t child, Stream* stream, const Outlet& outlet) {
  if (!stream->file.is_open() || outlet.is_full()) return;
  poller->Watch(stream->file.get(), POLLIN, [this, child, stream] { ReadStream(child, stream); });
}

void Supervisor::ReadStream(size_t child, Stream* stream) {
  if (!stream->file.is_open()) return;
  std::string bytes;
  const bool goes_on = ReadPiece(stream->file.get(), &bytes);
  for (const std::string& line : stream->lines.Add(bytes)) OnLine(child, *stream, line);
  if (goes_on) return;
  for (const std::string& line : stream->lines.Finish()) OnLine(child, *stream, line);
  stream->file.Close();
}

void Supervisor::OnLine(size_t number, const Stream& stream, const std::string& line) {
  Running& child = *children_[number];
  if (stream.kind == Stream::Kind::kMore) {
    if (options_.on_more) options_.on_more(number, line);
    return;
  }
  const bool is_error = stream.kind == Stream::Kind::kError;
  if (is_error) {
    if (options_.on_error_line && options_.on_error_line(number, line)) return;
    if (!line.empty()) child.last_words = line.substr(0, kCauseBytesMax);
  }
  (is_error ? error_ : output_).AddLine(absl::StrCat(clear_line_, child.options.prefix), line);
}

void Supervisor::ReadOrders() {
  std::string bytes;
  orders_ended_ = !ReadPiece(options_.orders, &bytes);
  for (const std::string& line : order_lines_.Add(bytes)) options_.on_order(line);
  if (!orders_ended_) return;
  Fail(128 + SIGKILL, "the connection to the launcher has ended");
  KillAll();
}

void Supervisor::ReadSignals() {
  signalfd_siginfo signal = {};
  while (read(signal_file_.get(), &signal, sizeof signal) == sizeof signal) {
    if (signal.ssi_signo != SIGCHLD) OnSignal(static_cast<int>(signal.ssi_signo));
  }
  OnChildren();
}

void Supervisor::OnSignal(int signal) {
  if (!std::exchange(was_signalled_, true)) return Forward(signal);
  Fail(128 + signal, absl::StrCat("ended at once by signal ", signal, " (", strsignal(signal), ")"));
  KillAll();
}

// Those that a signal has ended come first: where several have ended since the last look, the others may have seen that
// and failed in turn.
void Supervisor::OnChildren() {
  std::vector<std::pair<size_t, siginfo_t>> ended;
  for (size_t i = 0; i < children_.size(); ++i) {
    if (children_[i]->pid < 0) continue;
    const id_t pid = static_cast<id_t>(children_[i]->pid);
    siginfo_t news = {};
    if (waitid(P_PID, pid, &news, WSTOPPED | WCONTINUED | WNOHANG) == 0 && news.si_pid != 0) {
      const bool stopped = news.si_code == CLD_STOPPED;
      children_[i]->stopped_until = stopped ? world_->Now() + options_.stopped_max : kForever;
    }
    news = {};
    if (waitid(P_PID, pid, &news, WEXITED | WNOHANG | WNOWAIT) == 0 && news.si_pid != 0) ended.emplace_back(i, news);
  }
  std::stable_partition(ended.begin(), ended.end(), [](const auto& end) { return end.second.si_code != CLD_EXITED; });
  for (const auto& [child, end] : ended) OnEnd(child, end);
}

void Supervisor::OnEnd(size_t number, const siginfo_t& end) {
  Running& child = *children_[number];
  // What it has started and left behind; its number is its own until it is reaped.
  SignalGroup(child.pid, SIGKILL);
  waitpid(std::exchange(child.pid, -1), nullptr, 0);
  child.stopped_until = kForever;
  child.input.Close();
  --alive_;
  for (Stream& stream : child.streams) {
    for (size_t pieces = 0; stream.file.is_open() && pieces < kDrainBytesMax >> 14; ++pieces) {
      pollfd ready = {.fd = stream.file.get(), .events = POLLIN, .revents = 0};
      if (poll(&ready, 1, 0) <= 0) break;
      ReadStream(number, &stream);
    }
    for (const std::string& line : stream.lines.Finish()) OnLine(number, stream, line);
    stream.file.Close();
  }
  if (number == 0) kill_at_ = std::min(kill_at_, world_->Now() + options_.grace);
  if (CodeOf(end) == 0) return;
  std::string cause = absl::StrCat(child.options.name, " ", WordsOf(end));
  if (!child.last_words.empty()) absl::StrAppend(&cause, ": ", absl::StripPrefix(child.last_words, "sluice: "));
  Fail(CodeOf(end), std::move(cause));
}

void Supervisor::CheckDeadlines() {
  const Nanoseconds now = world_->Now();
  for (const auto& child : children_) {
    // What is stopped can't end by itself.
    if (result_.code != 0 && child->stopped_until != kForever) SignalGroup(child->pid, SIGKILL);
    if (child->stopped_until > now) continue;
    child->stopped_until = kForever;
    Fail(128 + SIGSTOP,
         absl::StrCat(child->options.name, " has been stopped for ", options_.stopped_max / kSecond, " s"));
  }
  if (kill_at_ > now || was_killed_) return;
  for (const auto& child : children_) {
    if (child->pid < 0) continue;
    Fail(128 + SIGKILL, absl::StrCat(child->options.name, " was still there ", options_.grace / kSecond,
                                     " s after the end of ", children_[0]->options.name, " and was killed"));
  }
  KillAll();
}

Nanoseconds Supervisor::NextDeadline() const {
  Nanoseconds deadline = was_killed_ ? kForever : kill_at_;
  for (const auto& child : children_) deadline = std::min(deadline, child->stopped_until);
  return deadline;
}

// A reader that takes nothing is waited for as long as a child would be.
void Supervisor::Flush() {
  const Nanoseconds deadline = world_->Now() + options_.grace;
  for (Outlet* outlet : {&output_, &error_}) {
    while (outlet->has_text() && world_->Now() < deadline) {
      Poller poller;
      poller.Watch(outlet->file(), POLLOUT, [outlet] { outlet->Write(); });
      poller.Wait(std::max<Nanoseconds>(0, deadline - world_->Now()));
    }
  }
}

}  // namespace sluice::tools
