#include "runtime/trainer/report.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/trace/chart.h"
#include "runtime/trainer/progress.h"

namespace sluice {
namespace {

double Milliseconds(Nanoseconds time) { return static_cast<double>(time) / static_cast<double>(kMillisecond); }

std::string Breakdown(const TrainReport& report) {
  std::string text = "\nWhere a step's time went (ms):\n";
  absl::StrAppendFormat(&text, "  %-6s %9s %9s %9s %9s %9s   %s\n", "rank", "step", "compute", "waiting", "transfer",
                        "optimizer", "memory, peak of planned");
  for (size_t rank = 0; rank < report.breakdown.size(); ++rank) {
    const RankBreakdown& part = report.breakdown[rank];
    absl::StrAppendFormat(&text, "  %-6d %9.1f %9.1f %9.1f %9.2f %9.1f", rank, Milliseconds(part.step_ns),
                          Milliseconds(part.compute_ns), Milliseconds(part.waiting_ns), Milliseconds(part.transfer_ns),
                          Milliseconds(part.optimizer_ns));
    if (rank < report.memory.size()) {
      absl::StrAppendFormat(&text, "   %s of %s", FormatBytes(report.memory[rank].peak_bytes),
                            FormatBytes(report.memory[rank].planned_bytes));
    }
    text += "\n";
  }
  for (const Straggler& straggler : report.stragglers) {
    absl::StrAppendFormat(&text,
                          "  Rank %d is a straggler: beside its plan it computes %.1f times as long as the others; look at "
                          "what else runs on its processors.\n",
                          straggler.rank.value(), straggler.times_slower);
  }
  absl::StrAppendFormat(&text,
                        "\nBubble: measured %.1f%%, predicted %.1f%% (the schedule simulated with the measured costs; %.1f%% "
                        "was planned).\nStep:   measured %.1f ms, predicted %.1f ms.\n",
                        100 * report.measured_bubble, 100 * report.predicted_bubble, 100 * report.planned_bubble,
                        Milliseconds(report.measured_step), Milliseconds(report.predicted_step));
  return text;
}

}  // namespace

std::string ToText(const TrainReport& report) {
  std::string text = absl::StrFormat(
      "\nTrained %d steps on %d tokens in %s (%.0f tokens/s). Loss of the last step: %.4f nats a token.\n", report.steps,
      report.tokens, FormatDuration(report.duration),
      report.duration > 0 ? static_cast<double>(report.tokens) * kSecond / static_cast<double>(report.duration) : 0.0,
      report.last_loss);
  if (report.resumed_after > 0) absl::StrAppend(&text, "They came after ", report.resumed_after, " steps of a checkpoint.\n");
  if (report.skipped_steps > 0) {
    absl::StrAppendFormat(&text, "%d steps were skipped because their gradient was not finite.\n", report.skipped_steps);
  }
  if (report.revised_steps > 0) {
    absl::StrAppendFormat(&text, "%d steps were clipped or skipped, and therefore done again (schedule.post_validation).\n",
                          report.revised_steps);
  }
  if (report.held_out_loss >= 0) {
    absl::StrAppendFormat(&text, "Held-out text: %.4f nats a token over %d tokens.\n", report.held_out_loss,
                          report.held_out_targets);
  }
  if (!report.breakdown.empty()) text += Breakdown(report);
  if (!report.sample.empty()) absl::StrAppend(&text, "\nSample:\n", report.sample, "\n");
  if (!report.checkpoint.empty()) {
    absl::StrAppend(&text, "\nSaved: ", report.checkpoint, "  (train on: --resume ", report.checkpoint, ")\n");
  }
  if (!report.trace_path.empty()) {
    absl::StrAppend(&text, "\nTrace: ", report.trace_path,
                    "  (open it at ui.perfetto.dev, or draw it: sluice visualize TRACE -o timeline.svg)\n");
  }
  return text;
}

}  // namespace sluice
