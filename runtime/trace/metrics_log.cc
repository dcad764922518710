#include "runtime/trace/metrics_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "nlohmann/json.hpp"
#include "runtime/trace/file_writer.h"

namespace sluice {

std::string FormatMetrics(const StepMetrics& metrics) {
  nlohmann::ordered_json line;
  const auto set = [&](const char* name, const auto& value) {
    if (value.has_value()) line[name] = *value;
  };
  line["step"] = metrics.step;
  set("loss", metrics.loss);
  set("evaluation_loss", metrics.evaluation_loss);
  set("learning_rate", metrics.learning_rate);
  set("gradient_norm", metrics.gradient_norm);
  set("tokens_per_second", metrics.tokens_per_second);
  set("step_seconds", metrics.step_seconds);
  set("bubble", metrics.bubble);
  set("skipped", metrics.skipped);
  for (const auto& [name, value] : metrics.more) line[name] = value;
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

namespace {

std::string LinesUpTo(int64_t step, const std::string& path) {
  std::ifstream file(path);
  std::string kept, line;
  while (std::getline(file, line)) {
    const auto fields = nlohmann::json::parse(line, nullptr, false);
    if (!fields.is_object() || !fields.contains("step") || !fields["step"].is_number_integer()) continue;
    if (fields["step"].get<int64_t>() <= step) kept += line + "\n";
  }
  return kept;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsLog>> MetricsLog::Create(const std::string& path,
                                                               std::function<void(const absl::Status&)> warn,
                                                               int64_t kept_steps) {
  std::unique_ptr<MetricsLog> log(new MetricsLog());
  const std::string kept = kept_steps > 0 ? LinesUpTo(kept_steps, path) : "";
  log->path_ = path;
  log->warn_ = std::move(warn);
  log->file_ = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
  if (log->file_ < 0) return FileError("write", path, errno);
  log->WriteText(kept);
  return log;
}

MetricsLog::~MetricsLog() {
  if (file_ >= 0) close(file_);
}

void MetricsLog::Write(const StepMetrics& metrics) {
  if (!failed_) WriteText(FormatMetrics(metrics) + "\n");
}

void MetricsLog::WriteText(const std::string& lines) {
  size_t done = 0;
  while (done < lines.size()) {
    const ssize_t written = write(file_, lines.data() + done, lines.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int error = errno;
      failed_ = true;
      // What was written of them goes again, so that all lines are whole.
      const bool whole = done == 0 || ftruncate(file_, bytes_) == 0;
      if (warn_) warn_(FileError(whole ? "write" : "write all of", path_, error));
      return;
    }
    done += static_cast<size_t>(written);
  }
  bytes_ += static_cast<int64_t>(lines.size());
}

}  // namespace sluice
