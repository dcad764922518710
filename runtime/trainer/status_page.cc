#include "runtime/trainer/status_page.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/status.h"
#include "runtime/trace/curve_svg.h"
#include "runtime/trace/svg.h"

namespace sluice {
namespace {

constexpr size_t kPointsMax = 1000;

constexpr char kHead[] =
    "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\">"
    "<title>Sluice</title><style>body{font:15px/1.5 sans-serif;margin:2em auto;max-width:1240px;padding:0 1em;"
    "color:#222;background:#fff}img{max-width:100%;height:auto}table{border-collapse:collapse}"
    "td,th{padding:.2em .9em;text-align:right;border-bottom:1px solid #ddd}h1{font-size:1.3em}h2{font-size:1.05em;"
    "margin:1.6em 0 .4em}p.now{font-size:1.1em}</style></head><body>";

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

void AddMetric(absl::string_view name, absl::string_view type, absl::string_view help, double value, std::string* text) {
  absl::StrAppend(text, "# HELP sluice_", name, " ", help, "\n# TYPE sluice_", name, " ", type, "\nsluice_", name, " ",
                  absl::StrFormat("%.9g", value), "\n");
}

}  // namespace

absl::StatusOr<std::unique_ptr<StatusPage>> StatusPage::Start(World* world, std::string title, const std::string& bind,
                                                              int port) {
  auto page = std::unique_ptr<StatusPage>(new StatusPage(std::move(title)));
  StatusPage* const self = page.get();
  PageServerOptions options{.bind = bind, .port = static_cast<uint16_t>(port)};
  options.pages = {{"/", "text/html; charset=utf-8", [self] { return self->Html(); }},
                   {"/loss.svg", "image/svg+xml", [self] { return self->LossCurve(); }},
                   {"/timeline.svg", "image/svg+xml", [self] { return self->LastStep(); }},
                   {"/metrics", "text/plain; version=0.0.4", [self] { return self->Metrics(); }}};
  ASSIGN_OR_RETURN(page->server_, PageServer::Start(world, std::move(options)));
  return page;
}

void StatusPage::Update(const StepProgress& progress, const Timeline& timeline, const std::vector<RankMemory>& memory,
                        int64_t tokens) {
  std::lock_guard lock(mutex_);
  progress_ = progress;
  timeline_ = timeline;
  memory_ = memory;
  tokens_ = tokens;
  if (progress.step % stride_ != 0 || !std::isfinite(progress.loss) || progress.loss < 0) return;
  losses_.push_back({progress.step, progress.loss});
  if (losses_.size() <= kPointsMax) return;
  stride_ *= 2;
  std::erase_if(losses_, [this](const LossPoint& point) { return point.step % stride_ != 0; });
}

void StatusPage::SetHeldOutLoss(int64_t step, double loss) {
  std::lock_guard lock(mutex_);
  if (std::isfinite(loss) && loss >= 0) held_out_.push_back({step, loss});
}

std::string StatusPage::LossCurve() const {
  std::lock_guard lock(mutex_);
  if (losses_.empty()) return "";
  CurvePicture picture{.title = "Loss", .x_name = "step", .y_name = "nats a target"};
  const auto points = [](const std::vector<LossPoint>& losses) {
    std::vector<CurvePoint> curve;
    for (const LossPoint& point : losses) curve.push_back({static_cast<double>(point.step), point.loss});
    return curve;
  };
  picture.lines.push_back({.name = "training", .points = points(losses_)});
  if (!held_out_.empty()) {
    picture.lines.push_back({.name = "held-out", .style = CurveStyle::kDashedSteps, .points = points(held_out_)});
  }
  return DrawCurves(picture);
}

std::string StatusPage::LastStep() const {
  std::lock_guard lock(mutex_);
  return timeline_.spans.empty() ? "" : DrawSvg({timeline_});
}

std::string StatusPage::RankTable() const {
  const TimelineMetrics metrics = Measure(timeline_);
  std::string text = "<table><tr><th>rank<th>bubble<th>busy, ms<th>memory, MiB<th>of planned, MiB</tr>";
  for (size_t rank = 0; rank < metrics.ranks.size(); ++rank) {
    const RankMemory memory = rank < memory_.size() ? memory_[rank] : RankMemory{};
    absl::StrAppendFormat(&text, "<tr><td>%d<td>%.1f %%<td>%.1f<td>%.1f<td>%.1f</tr>", rank,
                          100 * metrics.ranks[rank].bubble, static_cast<double>(metrics.ranks[rank].busy_ns) / 1e6,
                          static_cast<double>(memory.peak_bytes) / (1 << 20),
                          static_cast<double>(memory.planned_bytes) / (1 << 20));
  }
  return text + "</table>";
}

std::string StatusPage::Html() const {
  std::lock_guard lock(mutex_);
  std::string text = absl::StrCat(kHead, "<h1>Sluice: ", Escaped(title_), "</h1>");
  if (progress_.step == 0) return absl::StrCat(text, "<p>No step has ended yet.</p></body></html>\n");
  absl::StrAppend(&text, "<p class=\"now\">", Escaped(FormatProgress(progress_)), "</p>",
                  losses_.empty() ? "" : "<img src=\"/loss.svg\" alt=\"loss of each step\">");
  if (!timeline_.spans.empty()) {
    absl::StrAppend(&text, "<h2>The last step</h2><img src=\"/timeline.svg\" alt=\"timeline of the last step\">",
                    "<h2>Ranks</h2>", RankTable());
  }
  return absl::StrCat(text, "<p>Numbers for Prometheus: <a href=\"/metrics\">/metrics</a></p></body></html>\n");
}

std::string StatusPage::Metrics() const {
  std::lock_guard lock(mutex_);
  std::string text;
  AddMetric("step", "counter", "Steps done.", static_cast<double>(progress_.step), &text);
  AddMetric("steps_planned", "gauge", "Steps of the job.", static_cast<double>(progress_.steps), &text);
  AddMetric("tokens_total", "counter", "Tokens trained on.", static_cast<double>(tokens_), &text);
  AddMetric("loss", "gauge", "Of the last step, nats a target.", progress_.loss, &text);
  if (!held_out_.empty()) {
    AddMetric("held_out_loss", "gauge", "Of the last evaluation, nats a target.", held_out_.back().loss, &text);
  }
  AddMetric("learning_rate", "gauge", "Of the last step.", progress_.learning_rate, &text);
  AddMetric("gradient_norm", "gauge", "Of the last step.", progress_.gradient_norm, &text);
  AddMetric("tokens_per_second", "gauge", "Of the last step.", progress_.tokens_per_second, &text);
  AddMetric("bubble_ratio", "gauge", "Share of the last step in which the busiest rank was idle.", progress_.bubble, &text);
  if (memory_.empty()) return text;
  absl::StrAppend(&text, "# HELP sluice_memory_peak_bytes Most held by a rank's device.\n",
                  "# TYPE sluice_memory_peak_bytes gauge\n");
  for (size_t rank = 0; rank < memory_.size(); ++rank) {
    absl::StrAppend(&text, "sluice_memory_peak_bytes{rank=\"", rank, "\"} ", memory_[rank].peak_bytes, "\n");
  }
  return text;
}

}  // namespace sluice
