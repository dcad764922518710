#include "tools/measure/text.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sluice::tools {
namespace {

double Share(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

double Mebibytes(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

// One line of the table: all shapes of one operation.
struct Row {
  Products products = Products::kNone;
  int64_t calls = 0;
  double ms = 0;
  double flops = 0;
  double bytes = 0;
  FloorTime floor;
};

std::vector<std::pair<std::string, Row>> RowsOf(const BenchResult& result) {
  std::map<std::string, Row> rows;
  for (const BenchedOperation& operation : result.operations) {
    Row& row = rows[operation.operation];
    row.products = operation.shape.products;
    row.calls += operation.calls;
    row.ms += Median(operation.ms);
    row.flops += operation.flops;
    row.bytes += operation.read_bytes + operation.written_bytes;
    row.floor += operation.floor;
  }
  std::vector<std::pair<std::string, Row>> sorted(rows.begin(), rows.end());
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.second.ms > b.second.ms; });
  return sorted;
}

std::string Heading(const BenchResult& result) {
  std::string text = absl::StrCat(result.processor, "\n", result.program);
  for (const auto& [name, value] : result.job) {
    if (name != "layer graph") absl::StrAppend(&text, ", ", name, " ", value);
  }
  return absl::StrCat(text, "\n\n");
}

std::string Floor(const BenchResult& result) {
  if (result.memory.read == 0) return "";
  const double step = Median(result.step_ms), threads = result.threads;
  const FloorTime floor = FloorOfStep(result);
  return absl::StrFormat(
      "floor            %9.1f ms   products alone %.1f, bytes alone %.1f, on %d threads\n"
      "share of floor   %9.1f %%\n"
      "memory           %9.1f GB/s reading, %.1f writing, %.1f updating, each of %d threads at once\n",
      floor.ms / threads, floor.flops_ms / threads, floor.bytes_ms / threads, result.threads,
      Share(floor.ms / threads, step), result.memory.read / 1e9, result.memory.write / 1e9, result.memory.update / 1e9,
      result.threads);
}

std::string Prediction(const BenchResult& result) {
  std::string text = absl::StrFormat("bubble           %9.1f %%    planned %.1f %%\n", 100 * result.bubble,
                                     100 * result.planned_bubble);
  if (result.simulated_ms == 0) return text;
  absl::StrAppendFormat(
      &text, "simulated        %9.1f ms   with the measured costs; the measured %.1f ms are %+.1f %%\n",
      result.simulated_ms, result.traced_ms, Share(result.traced_ms - result.simulated_ms, result.simulated_ms));
  if (result.overhead_share >= 0) {
    absl::StrAppendFormat(&text, "overhead         %9.2f %%    of the step, executor and transport, the worst rank\n",
                          100 * result.overhead_share);
  }
  return text;
}

std::string Resources(const BenchResult& result) {
  std::string text;
  if (result.peak_bytes > 0) {
    absl::StrAppendFormat(
        &text,
        "peak memory      %9.1f MiB  of the process; planned %.1f, and %.1f before there was a model: %+.1f %%\n",
        Mebibytes(result.peak_bytes), Mebibytes(result.planned_bytes), Mebibytes(result.base_bytes),
        Share(static_cast<double>(result.peak_bytes - result.planned_bytes),
              static_cast<double>(result.planned_bytes)));
  }
  if (result.first_step_seconds > 0) {
    absl::StrAppendFormat(&text,
                          "first step       %9.1f s    after the start of the process; 3 steps and 2 s are %.1f\n",
                          result.first_step_seconds, 3e-3 * Median(result.step_ms) + 2);
  }
  return text;
}

// "matrix products 80.1 %, attention 9.3 %, everything else 10.6 %"
std::string Split(const std::vector<std::pair<std::string, Row>>& rows) {
  double products = 0, attention = 0, others = 0;
  for (const auto& [name, row] : rows) {
    (row.products == Products::kNone ? others : row.products == Products::kAttention ? attention : products) += row.ms;
  }
  const double all = products + attention + others;
  return absl::StrFormat("Busy time: matrix products %.1f %%, attention %.1f %%, everything else %.1f %%.\n",
                         Share(products, all), Share(attention, all), Share(others, all));
}

}  // namespace

std::string ToText(const BenchResult& result) {
  const double step = Median(result.step_ms);
  const auto [low, high] = std::minmax_element(result.step_ms.begin(), result.step_ms.end());
  std::string text =
      absl::StrCat(Heading(result),
                   absl::StrFormat("step             %9.1f ms   median of %d, %.1f to %.1f\ntokens/s         %9.0f\n",
                                   step, result.step_ms.size(), *low, *high, result.tokens / step * 1e3),
                   Floor(result), Prediction(result), Resources(result));
  const auto rows = RowsOf(result);
  double total = 0;
  for (const auto& [name, row] : rows) total += row.ms;
  absl::StrAppendFormat(
      &text,
      "\nA step's operations, on all threads (profiled step %.1f ms); bytes are those that must move:\n"
      "  %-24s %7s %10s %7s %9s %9s %10s %10s %9s\n",
      result.profiled_step_ms, "operation", "calls", "ms", "share", "GFLOP/s", "GB", "floor ms", "bytes' ms",
      "of floor");
  for (const auto& [name, row] : rows) {
    absl::StrAppendFormat(&text, "  %-24s %7d %10.2f %6.1f%%", name, row.calls, row.ms, Share(row.ms, total));
    absl::StrAppend(&text, row.flops > 0 ? absl::StrFormat(" %9.1f", row.flops / row.ms / 1e6) : "          ",
                    row.bytes > 0 ? absl::StrFormat(" %9.3f", row.bytes / 1e9) : "          ");
    if (row.floor.ms > 0) {
      absl::StrAppendFormat(&text, " %10.2f %10.2f %8.1f%%", row.floor.ms, row.floor.bytes_ms,
                            Share(row.floor.ms, row.ms));
    }
    text.erase(text.find_last_not_of(' ') + 1);
    absl::StrAppend(&text, "\n");
  }
  return absl::StrCat(text, Split(rows));
}

std::string ShapesToText(const BenchResult& result) {
  std::string text = absl::StrFormat(
      "\nMatrix products alone, GFLOP/s of each of %d threads at once (attention: one head's):\n"
      "  %-24s %6s %6s %6s %-5s %8s %8s %8s %9s %9s\n",
      result.threads, "operation", "M", "N", "K", "type", "own", "packed", "plain", "own/best", "in steps");
  for (const BenchedOperation& operation : result.operations) {
    const ProductShape& shape = operation.shape;
    if (shape.products == Products::kNone) continue;
    const ProductRates& rates = operation.rates;
    absl::StrAppendFormat(&text, "  %-24s %6d %6d %6d %-5s %8.1f %8.1f %8.1f %8.1f%% %9.1f\n", operation.operation,
                          shape.m, shape.n, shape.k, Name(shape.compute), rates.own / 1e9, rates.packed / 1e9,
                          rates.plain / 1e9, Share(rates.own, rates.library()),
                          operation.flops / Median(operation.ms) / 1e6);
  }
  return absl::StrCat(
      text, "packed, plain: oneDNN's own layout and row-major operands; own/best: beside the better of the two.\n");
}

std::string ToText(absl::Span<const Change> changes) {
  std::string text = absl::StrFormat("  %-44s %10s %10s %9s %9s\n", "", "before ms", "after ms", "change", "noise");
  int within = 0;
  for (const Change& change : changes) {
    const bool step = &change == &changes.front();
    if (!step && !change.beyond_noise()) {
      ++within;
      continue;
    }
    const double whole = change.before_ms > 0 ? change.before_ms : change.after_ms;
    absl::StrAppendFormat(&text, "  %-44s %10.2f %10.2f %+8.1f%% %8.1f%%  %s\n", change.what, change.before_ms,
                          change.after_ms, Share(change.difference_ms(), whole), Share(change.noise_ms, whole),
                          !change.beyond_noise() ? "no change beyond the noise"
                          : change.slower()      ? "slower"
                                                 : "faster");
  }
  if (within > 0) absl::StrAppend(&text, "  ", within, " other operations: no change beyond the noise.\n");
  return text;
}

}  // namespace sluice::tools
