#include "tools/comparison.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"

namespace sluice::tools {
namespace {

struct Cause {
  const char* name;
  int64_t IdleCauses::*ns;
};
constexpr Cause kCauses[] = {
    {"warm-up", &IdleCauses::warm_up_ns},       {"cool-down", &IdleCauses::cool_down_ns},
    {"activation", &IdleCauses::activation_ns}, {"gradient", &IdleCauses::gradient_ns},
    {"transfer", &IdleCauses::transfer_ns},     {"other", &IdleCauses::other_ns},
};

// Most chunks that each rank holds at once between F and W or B, in passes of a micro-batch through a rank's share.
std::vector<double> InFlightOfRanks(const Program& program) {
  std::vector<double> ranks;
  const double whole = static_cast<double>(program.placement.stages()) / program.placement.ranks();
  for (const auto& actions : program.ranks) {
    int held = 0, most = 0;
    for (const Action& a : actions) {
      if (a.kind == ActionKind::kForward) most = std::max(most, ++held);
      const bool done = a.kind == ActionKind::kBackward || a.kind == ActionKind::kWeightGradient;
      if (done || (program.pass == PassKind::kForwardOnly && a.kind == ActionKind::kForward)) --held;
    }
    ranks.push_back(most / whole);
  }
  return ranks;
}

double Most(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

// Mean over the ranks, as a share of the makespan.
double MeanShare(const ComparisonRow& row, int64_t IdleCauses::*ns) {
  double sum = 0;
  for (const IdleCauses& rank : row.idle) sum += static_cast<double>(rank.*ns);
  return row.metrics.makespan_ns == 0
             ? 0
             : sum / static_cast<double>(row.metrics.makespan_ns) / static_cast<double>(row.idle.size());
}

std::string Milliseconds(int64_t ns) { return absl::StrFormat("%.3f", static_cast<double>(ns) * 1e-6); }
std::string Percent(double share) { return absl::StrFormat("%.2f %%", 100 * share); }
std::string Bytes(int64_t bytes) {
  if (bytes == 0) return "-";
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(units); ++unit) value /= 1024;
  return absl::StrFormat(unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

// Columns as wide as their widest cell: the first to the left, the others to the right. The first one is cut short
// where the whole would be wider than `width`.
std::string Table(std::vector<std::vector<std::string>> lines, int width) {
  std::vector<size_t> widths(lines.front().size());
  for (const auto& line : lines) {
    for (size_t c = 0; c < line.size(); ++c) widths[c] = std::max(widths[c], line[c].size());
  }
  size_t others = 0;
  for (size_t c = 1; c < widths.size(); ++c) others += widths[c] + 2;
  constexpr size_t kNameLeast = 8;
  const size_t room =
      static_cast<size_t>(width) > others + kNameLeast ? static_cast<size_t>(width) - others : kNameLeast;
  widths[0] = std::min(widths[0], room);
  std::string text;
  for (auto& line : lines) {
    if (line[0].size() > widths[0]) line[0] = line[0].substr(0, widths[0] - 1) + "~";
    absl::StrAppendFormat(&text, "%-*s", static_cast<int>(widths[0]), line[0]);
    for (size_t c = 1; c < line.size(); ++c) {
      absl::StrAppendFormat(&text, "  %*s", static_cast<int>(widths[c]), line[c]);
    }
    text += '\n';
  }
  return text;
}

std::string TimesTable(const std::vector<ComparisonRow>& rows, int width) {
  std::vector<std::vector<std::string>> lines = {
      {"schedule", "stages", "makespan ms", "bubble", "span ms", "bubble", "in flight", "memory", "messages", "bytes"}};
  for (const ComparisonRow& row : rows) {
    if (!row.refusal.ok()) continue;
    lines.push_back({row.schedule, absl::StrCat(row.stages), Milliseconds(row.metrics.makespan_ns),
                     Percent(row.metrics.makespan_bubble), Milliseconds(row.metrics.span_ns),
                     Percent(row.metrics.span_bubble), absl::StrFormat("%.4g", Most(row.in_flight)),
                     Bytes(row.memory_bytes_max), absl::StrCat(row.transfers), Bytes(row.transfer_bytes)});
  }
  return Table(std::move(lines), width);
}

std::string CausesTable(const std::vector<ComparisonRow>& rows, int width) {
  std::vector<std::vector<std::string>> lines = {{"idle, mean of ranks", "all"}};
  for (const Cause& cause : kCauses) lines.front().push_back(cause.name);
  for (const ComparisonRow& row : rows) {
    if (!row.refusal.ok()) continue;
    double all = 0;
    for (const Cause& cause : kCauses) all += MeanShare(row, cause.ns);
    std::vector<std::string>& line = lines.emplace_back();
    line = {row.schedule, Percent(all)};
    for (const Cause& cause : kCauses) line.push_back(Percent(MeanShare(row, cause.ns)));
  }
  return Table(std::move(lines), width);
}

std::string RanksTable(const ComparisonRow& row, int width) {
  std::vector<std::vector<std::string>> lines = {{"ms", "busy", "idle"}};
  for (const Cause& cause : kCauses) lines.front().push_back(cause.name);
  lines.front().push_back("in flight");
  for (size_t r = 0; r < row.idle.size(); ++r) {
    const IdleCauses& idle = row.idle[r];
    std::vector<std::string>& line = lines.emplace_back();
    line = {absl::StrCat("rank ", r), Milliseconds(idle.busy_ns), Milliseconds(idle.idle_ns())};
    for (const Cause& cause : kCauses) line.push_back(Milliseconds(idle.*cause.ns));
    line.push_back(absl::StrFormat("%.4g", row.in_flight[r]));
  }
  return Table(std::move(lines), width);
}

std::string Identifier(const char* cause) { return absl::StrReplaceAll(cause, {{"-", "_"}}); }

std::string CsvCell(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

nlohmann::ordered_json RankToJson(const ComparisonRow& row, size_t r) {
  const IdleCauses& idle = row.idle[r];
  nlohmann::ordered_json rank = {{"rank", r}, {"busy_ns", idle.busy_ns}, {"idle_ns", idle.idle_ns()}};
  for (const Cause& cause : kCauses) rank[Identifier(cause.name) + "_ns"] = idle.*cause.ns;
  rank["in_flight"] = row.in_flight[r];
  return rank;
}

}  // namespace

ComparisonRow MakeRow(const std::string& schedule, const Program& program, const Timeline& timeline) {
  ComparisonRow row{.schedule = schedule,
                    .stages = program.placement.stages(),
                    .metrics = Measure(timeline),
                    .idle = ExplainIdle(timeline),
                    .in_flight = InFlightOfRanks(program)};
  for (const RankMetrics& rank : row.metrics.ranks) {
    row.memory_bytes_max = std::max(row.memory_bytes_max, rank.memory_bytes_max);
  }
  for (const Span& span : timeline.spans) {
    if (!IsSend(span.action.kind)) continue;
    ++row.transfers;
    row.transfer_bytes += span.bytes;
  }
  return row;
}

std::string RowsToText(const std::vector<ComparisonRow>& rows, int width) {
  std::string text;
  const auto fits = [](const ComparisonRow& row) { return row.refusal.ok(); };
  if (std::any_of(rows.begin(), rows.end(), fits)) {
    absl::StrAppend(&text, TimesTable(rows, width), "\n", CausesTable(rows, width));
    if (rows.size() == 1) absl::StrAppend(&text, "\n", RanksTable(rows.front(), width));
  }
  bool first = true;
  for (const ComparisonRow& row : rows) {
    if (row.refusal.ok()) continue;
    absl::StrAppend(&text, std::exchange(first, false) ? "\nrefused:\n" : "", "  ", row.schedule, ": ",
                    row.refusal.message(), "\n");
  }
  return text;
}

std::string RowsToCsv(const std::vector<ComparisonRow>& rows) {
  std::string text =
      "schedule,refused,stages,makespan_ns,makespan_bubble,span_ns,span_bubble,in_flight,memory_bytes,"
      "messages,message_bytes";
  for (const Cause& cause : kCauses) absl::StrAppend(&text, ",idle_", Identifier(cause.name));
  text += '\n';
  for (const ComparisonRow& row : rows) {
    absl::StrAppend(&text, CsvCell(row.schedule), ",", CsvCell(std::string(row.refusal.message())));
    if (row.refusal.ok()) {
      absl::StrAppend(&text, ",", row.stages, ",", row.metrics.makespan_ns, ",", row.metrics.makespan_bubble, ",",
                      row.metrics.span_ns, ",", row.metrics.span_bubble, ",", Most(row.in_flight), ",",
                      row.memory_bytes_max, ",", row.transfers, ",", row.transfer_bytes);
      for (const Cause& cause : kCauses) absl::StrAppend(&text, ",", MeanShare(row, cause.ns));
    } else {
      text.append(9 + std::size(kCauses), ',');
    }
    text += '\n';
  }
  return text;
}

std::string RowsToJson(const std::vector<ComparisonRow>& rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const ComparisonRow& row : rows) {
    nlohmann::ordered_json& entry = list.emplace_back();
    entry["schedule"] = row.schedule;
    if (!row.refusal.ok()) {
      entry["refused"] = std::string(row.refusal.message());
      continue;
    }
    entry["stages"] = row.stages;
    entry["makespan_ns"] = row.metrics.makespan_ns;
    entry["makespan_bubble"] = row.metrics.makespan_bubble;
    entry["span_ns"] = row.metrics.span_ns;
    entry["span_bubble"] = row.metrics.span_bubble;
    entry["in_flight"] = Most(row.in_flight);
    entry["memory_bytes"] = row.memory_bytes_max;
    entry["messages"] = row.transfers;
    entry["message_bytes"] = row.transfer_bytes;
    for (const Cause& cause : kCauses) entry["idle_" + Identifier(cause.name)] = MeanShare(row, cause.ns);
    entry["ranks"] = nlohmann::ordered_json::array();
    for (size_t r = 0; r < row.idle.size(); ++r) entry["ranks"].push_back(RankToJson(row, r));
  }
  return list.dump(1) + "\n";
}

}  // namespace sluice::tools
