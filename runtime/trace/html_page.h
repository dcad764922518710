// The page of html.h around its data: style, elements and the script that draws DATA on a canvas.
#pragma once

namespace sluice {

inline constexpr char kHtmlHead[] = R"html(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Timeline of a pipeline</title>
<style>
:root { --page: #ffffff; --text: #1f2733; --faint: #5b6472; --lane: #f1f3f6; --grid: #d3d8e0; --path: #c2185b;
  --activation: #1c4f94; --gradient: #b5651d; color-scheme: light dark; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171c; --text: #e7eaf0; --faint: #9aa4b2; --lane: #20252d; --grid: #3a414c; --path: #ff6fa3;
    --activation: #7fb2f0; --gradient: #f0b070; } }
body { margin: 0; background: var(--page); color: var(--text); font: 13px/1.4 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", Arial, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: 6px 18px; align-items: center; padding: 10px 16px; position: sticky; top: 0; background: var(--page); border-bottom: 1px solid var(--grid); z-index: 1; }
header label, header span { white-space: nowrap; }
input[type=number] { width: 5em; }
.swatch { display: inline-block; width: 12px; height: 12px; vertical-align: -1px; }
.faint { color: var(--faint); }
canvas { display: block; width: 100%; cursor: grab; touch-action: pan-y; }
#facts { position: fixed; display: none; pointer-events: none; background: var(--page); border: 1px solid var(--grid); border-radius: 6px; padding: 6px 10px; box-shadow: 0 2px 10px #0004; white-space: pre-line; z-index: 2; }
</style>
</head>
<body>
<header>
  <label>Follow micro-batch <input id="follow" type="number" min="0" placeholder="none"></label>
  <label><input id="transfers" type="checkbox" checked> transfers</label>
  <button id="all">whole timeline</button>
  <span id="legend"></span>
  <span class="faint">wheel zooms, dragging moves, a click follows a micro-batch, Escape lets it go</span>
</header>
<canvas id="canvas"></canvas>
<div id="facts"></div>
)html";

inline constexpr char kHtmlScript[] = R"html(<script>
"use strict";
// Rows are flat lists; these are their strides and fields.
const BOX = 7, KIND = 0, STAGE = 1, CHUNK = 2, MICRO = 3, COPY = 4, BEGIN = 5, END = 6;
const MOVE = 9, M_FORWARD = 0, M_SEND = 1, M_STAGE = 2, M_MICRO = 3, M_PEER = 4, M_COPY = 5, M_BEGIN = 6, M_END = 7, M_BYTES = 8;
const LEFT = 76, RIGHT = 16, HEAD = 48, AXIS = 26;
const canvas = document.getElementById("canvas"), paint = canvas.getContext("2d");
const facts = document.getElementById("facts"), follow = document.getElementById("follow");
const showTransfers = document.getElementById("transfers");

let end = 1, rowsMost = 1;
for (const chart of DATA.charts) {
  rowsMost = Math.max(rowsMost, chart.rows.length);
  for (const row of chart.rows) {
    row.longest = row.longestMove = 0;
    for (let i = 0; i < row.boxes.length; i += BOX) {
      end = Math.max(end, row.boxes[i + END]);
      row.longest = Math.max(row.longest, row.boxes[i + END] - row.boxes[i + BEGIN]);
    }
    for (let i = 0; i < row.transfers.length; i += MOVE) {
      end = Math.max(end, row.transfers[i + M_END]);
      row.longestMove = Math.max(row.longestMove, row.transfers[i + M_END] - row.transfers[i + M_BEGIN]);
    }
  }
}
let from = 0, to = end, width = 0;
const pitch = Math.max(8, Math.min(36, Math.floor(900 / (rowsMost * DATA.charts.length))));

// The state stands in the address, so that a view can be passed on.
function readAddress() {
  const state = new URLSearchParams(location.hash.slice(1));
  follow.value = state.get("micro_batch") ?? "";
  from = Number(state.get("from") ?? 0);
  to = Number(state.get("to") ?? end);
  if (!(to > from)) { from = 0; to = end; }
}
function writeAddress() {
  const state = new URLSearchParams();
  if (follow.value !== "") state.set("micro_batch", follow.value);
  if (from > 0 || to < end) { state.set("from", Math.round(from)); state.set("to", Math.round(to)); }
  history.replaceState(null, "", "#" + state);
}

function duration(ns) {
  for (const [unit, name] of [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]]) {
    if (Math.abs(ns) >= unit) return Number((ns / unit).toPrecision(5)) + " " + name;
  }
  return Math.round(ns) + " ns";
}
function size(bytes) {
  let unit = 0;
  for (; bytes >= 1024 && unit < 4; ++unit) bytes /= 1024;
  return Number(bytes.toPrecision(4)) + " " + ["B", "KiB", "MiB", "GiB", "TiB"][unit];
}

const x = ns => LEFT + (ns - from) / (to - from) * (width - LEFT - RIGHT);
const time = px => from + (px - LEFT) / (width - LEFT - RIGHT) * (to - from);
const panelTop = i => DATA.charts.slice(0, i).reduce((y, c) => y + HEAD + c.rows.length * pitch + AXIS, 0);

// Index of the first entry that begins at or after `ns`.
function firstFrom(list, stride, field, ns) {
  let low = 0, high = list.length / stride;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle * stride + field] < ns) low = middle + 1; else high = middle;
  }
  return low * stride;
}

function style(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

function draw() {
  const ratio = window.devicePixelRatio || 1;
  width = canvas.clientWidth;
  const height = panelTop(DATA.charts.length);
  canvas.style.height = height + "px";
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  paint.setTransform(ratio, 0, 0, ratio, 0, 0);
  paint.clearRect(0, 0, width, height);
  DATA.charts.forEach((chart, i) => drawPanel(chart, panelTop(i)));
}

function drawPanel(chart, top) {
  paint.textAlign = "left";
  paint.fillStyle = style("--text");
  paint.font = "600 15px system-ui, sans-serif";
  paint.fillText(chart.title, 16, top + 20);
  paint.fillStyle = style("--faint");
  paint.font = "12px system-ui, sans-serif";
  paint.fillText(chart.caption, 16, top + 38);
  top += HEAD;
  drawLanes(chart, top);
  drawAxis(top, top + chart.rows.length * pitch);
  paint.save();
  paint.beginPath();
  paint.rect(LEFT, top, width - LEFT - RIGHT, chart.rows.length * pitch);
  paint.clip();
  const micro = follow.value === "" ? -1 : Number(follow.value);
  chart.rows.forEach((row, r) => drawRow(row, top + r * pitch, micro));
  if (micro >= 0) drawWay(chart, top, micro);
  paint.restore();
}

function drawLanes(chart, top) {
  paint.textAlign = "right";
  paint.font = Math.min(12, pitch) + "px system-ui, sans-serif";
  chart.rows.forEach((row, r) => {
    paint.fillStyle = style("--lane");
    paint.fillRect(LEFT, top + r * pitch, width - LEFT - RIGHT, boxHeight());
    paint.fillStyle = style("--faint");
    paint.fillText("rank " + r, LEFT - 8, top + r * pitch + boxHeight() / 2 + 4);
  });
}

function drawAxis(top, bottom) {
  const raw = (to - from) / Math.max(1, (width - LEFT - RIGHT) / 110), power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = Math.max(1, [1, 2, 5, 10].map(f => f * power).find(d => d >= raw));
  paint.textAlign = "center";
  paint.font = "11px system-ui, sans-serif";
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
    paint.fillStyle = style("--grid");
    paint.fillRect(x(t), top, 1, bottom - top + 4);
    paint.fillStyle = style("--faint");
    paint.fillText(t === 0 ? "0" : duration(t), x(t), bottom + 16);
  }
}

const strip = () => showTransfers.checked ? Math.max(1, Math.floor(pitch / 9)) : 0;
const boxHeight = () => pitch - 2 * strip() - (pitch > 14 ? 4 : 2);

function drawRow(row, y, micro) {
  const height = boxHeight(), list = row.boxes;
  paint.textAlign = "center";
  // Boxes that end before the last drawn pixel can't be seen; those too narrow for a border stand edge to edge.
  let drawn = -1;
  for (let i = firstFrom(list, BOX, BEGIN, from - row.longest); i < list.length && list[i + BEGIN] < to; i += BOX) {
    const left = x(list[i + BEGIN]), right = x(list[i + END]);
    if (right < LEFT || right < drawn + 0.5) continue;
    drawn = Math.max(drawn, right);
    const [color, ink] = DATA.kinds[list[i + KIND]].colors[list[i + CHUNK]];
    const wide = right - left, followed = micro >= 0 && list[i + MICRO] === micro;
    paint.globalAlpha = micro >= 0 && !followed ? 0.22 : 1;
    paint.fillStyle = color;
    paint.fillRect(left, y, Math.max(wide - (wide > 5 ? 1 : wide > 2 ? 0.4 : 0), 0.6), height);
    const number = list[i + MICRO] < 0 ? "" : String(list[i + MICRO]);
    const font = Math.min(height * 0.62, 13, (wide - 3) / (0.62 * number.length));
    if (number === "" || font < 6) continue;
    paint.fillStyle = ink;
    paint.font = font + "px system-ui, sans-serif";
    const middle = (Math.max(left, LEFT) + Math.min(right, width - RIGHT)) / 2;
    paint.fillText(number, middle, y + height / 2 + font * 0.36);
  }
  paint.globalAlpha = 1;
  if (strip() > 0) drawTransfers(row, y + height, micro);
}

function drawTransfers(row, y, micro) {
  const list = row.transfers, colors = [style("--gradient"), style("--activation")];
  const drawn = [-1, -1];
  for (let i = firstFrom(list, MOVE, M_BEGIN, from - row.longestMove); i < list.length && list[i + M_BEGIN] < to; i += MOVE) {
    const forward = list[i + M_FORWARD], left = x(list[i + M_BEGIN]), right = Math.max(x(list[i + M_END]), left + 0.6);
    if (right < LEFT || right < drawn[forward] + 0.5) continue;
    drawn[forward] = right;
    paint.globalAlpha = micro >= 0 && list[i + M_MICRO] !== micro ? 0.22 : 1;
    paint.fillStyle = colors[forward];
    paint.fillRect(left, y + (forward ? 0 : strip()), right - left, strip());
  }
  paint.globalAlpha = 1;
}

// The followed micro-batch: its F, then its B or I, from box to box in order of time.
function drawWay(chart, top, micro) {
  const stops = [];
  chart.rows.forEach((row, r) => {
    for (let i = 0; i < row.boxes.length; i += BOX) {
      if (row.boxes[i + MICRO] === micro && row.boxes[i + KIND] < 3) stops.push([row.boxes[i + BEGIN], row.boxes[i + END], r]);
    }
  });
  stops.sort((a, b) => a[0] - b[0]);
  paint.strokeStyle = style("--path");
  paint.lineWidth = 2;
  paint.beginPath();
  const middle = r => top + r * pitch + boxHeight() * 0.85;  // below the numbers
  stops.forEach(([begin, stop, r], i) => {
    if (i === 0) paint.moveTo(x(begin), middle(r)); else paint.lineTo(x(begin), middle(r));
    paint.lineTo(x(stop), middle(r));
  });
  paint.stroke();
}

// What lies under the pointer: {chart, rank, row, i} of a box, or null.
function boxAt(px, py) {
  for (let c = 0; c < DATA.charts.length; ++c) {
    const chart = DATA.charts[c], r = Math.floor((py - panelTop(c) - HEAD) / pitch);
    if (r < 0 || r >= chart.rows.length || px < LEFT) continue;
    const row = chart.rows[r], t = time(px);
    for (let i = firstFrom(row.boxes, BOX, BEGIN, t - row.longest); i < row.boxes.length && row.boxes[i + BEGIN] <= t; i += BOX) {
      if (row.boxes[i + END] >= t) return {chart, rank: r, row, i};
    }
  }
  return null;
}

function factsOf({rank, row, i}) {
  const b = row.boxes.slice(i, i + BOX), kind = DATA.kinds[b[KIND]];
  const lines = [kind.name + (b[MICRO] >= 0 ? " of micro-batch " + b[MICRO] : "")];
  const place = "rank " + rank + (b[STAGE] >= 0 ? ", stage " + b[STAGE] : "");
  lines.push(place + (b[COPY] > 0 ? ", copy " + b[COPY] : ""));
  lines.push("takes " + duration(b[END] - b[BEGIN]) + ", from " + duration(b[BEGIN]) + " to " + duration(b[END]));
  let before = 0;
  for (let j = 0; j < i; j += BOX) before = Math.max(before, row.boxes[j + END]);
  if (b[BEGIN] > before) lines.push("the rank was idle for " + duration(b[BEGIN] - before) + " before it");
  for (let j = 0; j < row.transfers.length; j += MOVE) {
    const t = row.transfers.slice(j, j + MOVE);
    const ofForward = b[KIND] === 0 && t[M_FORWARD] === 1, ofBackward = (b[KIND] === 1 || b[KIND] === 2) && t[M_FORWARD] === 0;
    if (t[M_MICRO] !== b[MICRO] || t[M_STAGE] !== b[STAGE] || t[M_COPY] !== b[COPY] || !(ofForward || ofBackward)) continue;
    lines.push((t[M_SEND] ? "sent to rank " : "received from rank ") + t[M_PEER] + (t[M_BYTES] ? ", " + size(t[M_BYTES]) : "") +
      ", from " + duration(t[M_BEGIN]) + " to " + duration(t[M_END]));
  }
  return lines.join("\n");
}

function showFacts(event) {
  const area = canvas.getBoundingClientRect(), box = boxAt(event.clientX - area.left, event.clientY - area.top);
  facts.style.display = box ? "block" : "none";
  if (!box) return;
  facts.textContent = factsOf(box);
  facts.style.left = Math.min(event.clientX + 14, window.innerWidth - facts.offsetWidth - 8) + "px";
  facts.style.top = Math.min(event.clientY + 14, window.innerHeight - facts.offsetHeight - 8) + "px";
}

function view(newFrom, newTo) {
  const span = Math.min(Math.max(newTo - newFrom, 10), end);
  from = Math.min(Math.max(newFrom, 0), end - span);
  to = from + span;
  refresh();
}
let waiting = false;
function refresh() {
  writeAddress();
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

let drag = null;
canvas.addEventListener("wheel", event => {
  if (event.shiftKey) return;
  event.preventDefault();
  if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    const by = event.deltaX / width * (to - from);
    return view(from + by, to + by);
  }
  const at = time(event.clientX - canvas.getBoundingClientRect().left), factor = Math.exp(event.deltaY * 0.0015);
  view(at - (at - from) * factor, at + (to - at) * factor);
}, {passive: false});
canvas.addEventListener("pointerdown", event => { drag = {x: event.clientX, y: event.clientY, from, to, moved: false}; canvas.setPointerCapture(event.pointerId); });
canvas.addEventListener("pointermove", event => {
  if (!drag) return showFacts(event);
  const by = (drag.x - event.clientX) / (width - LEFT - RIGHT) * (drag.to - drag.from);
  drag.moved ||= Math.abs(event.clientX - drag.x) + Math.abs(event.clientY - drag.y) > 4;
  if (!drag.moved) return;
  facts.style.display = "none";
  window.scrollBy(0, -event.movementY);
  view(drag.from + by, drag.to + by);
});
canvas.addEventListener("pointerup", event => {
  const moved = drag?.moved, area = canvas.getBoundingClientRect();
  drag = null;
  if (moved) return;
  const box = boxAt(event.clientX - area.left, event.clientY - area.top);
  if (box && box.row.boxes[box.i + MICRO] >= 0) follow.value = box.row.boxes[box.i + MICRO];
  if (!box) follow.value = "";
  refresh();
});
canvas.addEventListener("pointerleave", () => facts.style.display = "none");
window.addEventListener("keydown", event => {
  if (event.key === "Escape") { follow.value = ""; refresh(); }
  const by = (to - from) / 8;
  if (event.target === follow) return;
  if (event.key === "ArrowLeft") view(from - by, to - by);
  if (event.key === "ArrowRight") view(from + by, to + by);
  if (event.key === "+") view(from + by, to - by);
  if (event.key === "-") view(from - by, to + by);
});
follow.addEventListener("input", refresh);
showTransfers.addEventListener("change", refresh);
document.getElementById("all").addEventListener("click", () => view(0, end));
window.addEventListener("resize", draw);
window.addEventListener("hashchange", () => { readAddress(); draw(); });
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

const used = new Set(DATA.charts.flatMap(chart => chart.rows.flatMap(row => row.boxes.filter((_, i) => i % BOX === KIND && row.boxes[i + END] > row.boxes[i + BEGIN]))));
document.getElementById("legend").innerHTML = [...used].sort().map(kind =>
  `<span class="swatch" style="background:${DATA.kinds[kind].colors[0][0]}"></span> ${DATA.kinds[kind].name}`).join(" &nbsp; ");
document.title = DATA.charts.map(chart => chart.title).join(" / ");
readAddress();
draw();
</script>
</body>
</html>
)html";

}  // namespace sluice
