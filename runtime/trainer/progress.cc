#include "runtime/trainer/progress.h"

#include "absl/strings/str_format.h"

namespace sluice {

std::string FormatDuration(Nanoseconds duration) {
  const int64_t seconds = (duration + kSecond / 2) / kSecond;
  if (seconds < 60) return absl::StrFormat("%ds", seconds);
  if (seconds < 3600) return absl::StrFormat("%dm%02ds", seconds / 60, seconds % 60);
  return absl::StrFormat("%dh%02dm", seconds / 3600, seconds / 60 % 60);
}

std::string FormatProgress(const StepProgress& p) {
  std::string rate = p.tokens_per_second >= 10'000 ? absl::StrFormat("%.1fk tok/s", p.tokens_per_second / 1000)
                                                   : absl::StrFormat("%.0f tok/s", p.tokens_per_second);
  std::string line = absl::StrFormat("step %d/%d  loss %.4f  lr %.2e  norm %.3g  %s  bubble %.1f%%  left %s", p.step,
                                     p.steps, p.loss, p.learning_rate, p.gradient_norm, rate, 100 * p.bubble,
                                     FormatDuration(p.left));
  if (p.skipped) line += "  skipped: gradient not finite";
  return line;
}

void ProgressPrinter::Step(const StepProgress& progress) {
  if (mode_ == Mode::kQuiet) return;
  const std::string line = FormatProgress(progress);
  if (mode_ == Mode::kTerminal && !progress.skipped) {
    std::fprintf(out_, "\r\033[K%s", line.c_str());
    open_ = true;
  } else {
    Finish();
    std::fprintf(out_, "%s\n", line.c_str());
  }
  std::fflush(out_);
}

void ProgressPrinter::Line(const std::string& text) {
  if (mode_ == Mode::kQuiet) return;
  Finish();
  std::fprintf(out_, "%s\n", text.c_str());
  std::fflush(out_);
}

void ProgressPrinter::Finish() {
  if (open_) std::fprintf(out_, "\n");
  open_ = false;
}

}  // namespace sluice
