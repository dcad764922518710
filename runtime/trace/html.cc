#include "runtime/trace/html.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"
#include "nlohmann/json.hpp"
#include "runtime/trace/chart.h"
#include "runtime/trace/html_page.h"

namespace sluice {
namespace {

// One flat list of numbers per row, which the page's script reads with a stride: small, and quick to parse.
void AppendNumbers(std::string& out, std::initializer_list<int64_t> numbers) {
  for (const int64_t number : numbers) absl::StrAppend(&out, out.back() == '[' ? "" : ",", number);
}

void AppendRow(const ChartRow& row, std::string& out) {
  absl::StrAppend(&out, "{\"boxes\":[");
  for (const Box& b : row.boxes) {
    AppendNumbers(out,
                  {static_cast<int>(b.kind), b.stage, b.chunk, b.micro_batch, b.copy, b.pair, b.begin_ns, b.end_ns});
  }
  absl::StrAppend(&out, "],\"transfers\":[");
  for (const TransferBox& t : row.transfers) {
    AppendNumbers(out, {t.forward, t.send, t.stage, t.micro_batch, t.peer, t.copy, t.begin_ns, t.end_ns, t.bytes});
  }
  absl::StrAppend(&out, "]}");
}

// Text in a script element must not be able to end it.
std::string ScriptText(const std::string& text) {
  const nlohmann::json json = text;
  return absl::StrReplaceAll(json.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace), {{"<", "\\u003c"}});
}

// The kinds that occur, each with the colours of its shades.
std::string LegendData(const Legend& legend) {
  std::string out = "[";
  for (int k = 0; k < kBoxKinds; ++k) {
    if (!legend.kinds[k]) continue;
    const bool shaded = legend.chunks > 1 && k <= static_cast<int>(BoxKind::kWeightGradient);
    absl::StrAppend(&out, out.size() > 1 ? "," : "", "{\"name\":\"", BoxName(BoxKind(k)), shaded ? legend.shades : "",
                    "\",\"colors\":[");
    for (int chunk = 0; chunk < (shaded ? legend.chunks : 1); ++chunk) {
      absl::StrAppend(&out, chunk > 0 ? "," : "", "\"", BoxColor(BoxKind(k), chunk, legend.chunks).Hex(), "\"");
    }
    absl::StrAppend(&out, "]}");
  }
  return out + "]";
}

std::string Data(const std::vector<Chart>& charts) {
  const Legend legend = MakeLegend(charts);
  const int chunks = legend.chunks;
  std::string out = absl::StrCat("{\"legend\":", LegendData(legend), ",\n\"kinds\":[");
  for (int kind = 0; kind < kBoxKinds; ++kind) {
    absl::StrAppend(&out, kind > 0 ? "," : "", "{\"letter\":\"", std::string(1, BoxLetter(BoxKind(kind))),
                    "\",\"name\":\"", BoxName(BoxKind(kind)), "\",\"colors\":[");
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const Color color = BoxColor(BoxKind(kind), chunk, chunks);
      absl::StrAppend(&out, chunk > 0 ? "," : "", "[\"", color.Hex(), "\",\"", color.dark() ? "#fff" : "#10151d",
                      "\"]");
    }
    absl::StrAppend(&out, "]}");
  }
  absl::StrAppend(&out, "],\n\"charts\":[");
  for (size_t i = 0; i < charts.size(); ++i) {
    absl::StrAppend(&out, i > 0 ? ",\n" : "", "{\"title\":", ScriptText(charts[i].title),
                    ",\"caption\":", ScriptText(charts[i].caption), ",\"rows\":[\n");
    for (size_t r = 0; r < charts[i].rows.size(); ++r) {
      if (r > 0) absl::StrAppend(&out, ",\n");
      AppendRow(charts[i].rows[r], out);
    }
    absl::StrAppend(&out, "]}");
  }
  absl::StrAppend(&out, "]}");
  return out;
}

}  // namespace

std::string DrawHtml(const std::vector<Timeline>& timelines) {
  CHECK(!timelines.empty());
  std::vector<Chart> charts;
  for (const Timeline& timeline : timelines) charts.push_back(MakeChart(timeline));
  return absl::StrCat(kHtmlHead, "<script>\nconst DATA = ", Data(charts), ";\n</script>\n", kHtmlScript);
}

}  // namespace sluice
