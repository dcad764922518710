#include "tools/timeline_file.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "runtime/trace/chrome_trace.h"
#include "runtime/trace/file_writer.h"
#include "runtime/trace/html.h"
#include "runtime/trace/perfetto_trace.h"
#include "runtime/trace/svg.h"
#include "runtime/trace/text_chart.h"
#include "tools/png.h"

namespace sluice::tools {

absl::StatusOr<std::string> TimelineFormat(const std::string& path) {
  for (const auto& [ending, format] : {std::pair(".svg", "svg"),
                                       {".png", "png"},
                                       {".html", "html"},
                                       {".txt", "text"},
                                       {".json", "json"},
                                       {".pftrace", "perfetto"},
                                       {".perfetto-trace", "perfetto"}}) {
    if (absl::EndsWith(path, ending)) return format;
  }
  return absl::InvalidArgumentError(absl::StrCat("the ending of '", path,
                                                 "' does not say what to draw: end it in .svg, .png, .html, .txt, "
                                                 ".json or .pftrace"));
}

absl::Status WriteTimeline(const std::string& path, const std::string& format, const Timeline& timeline) {
  if (format == "json") return WriteChromeTrace(path, {{1, 0, timeline}});
  if (format == "perfetto") return WritePerfettoTrace(path, {{1, 0, timeline}});
  if (format == "text") return WriteWholeFile(path, DrawText({timeline}));
  if (format == "html") return WriteWholeFile(path, DrawHtml({timeline}));
  std::string drawing = DrawSvg({timeline});
  if (format == "png") {
    ASSIGN_OR_RETURN(drawing, PngOf(drawing));
  }
  return WriteWholeFile(path, drawing);
}

}  // namespace sluice::tools
