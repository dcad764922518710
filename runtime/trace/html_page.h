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
header label, header > span { white-space: nowrap; }
#legend { display: flex; flex-wrap: wrap; gap: 2px 14px; }
#way { flex-basis: 100%; white-space: normal; color: var(--path); }
#way:empty { display: none; }
input[type=number] { width: 5em; }
.swatch { display: inline-block; width: 12px; height: 12px; vertical-align: -1px; }
.faint { color: var(--faint); }
canvas { display: block; width: 100%; cursor: grab; touch-action: pan-y; }
#facts { position: fixed; display: none; pointer-events: none; background: var(--page); border: 1px solid var(--grid); border-radius: 6px; padding: 6px 10px; box-shadow: 0 2px 10px #0004; white-space: pre-line; max-width: 44em; z-index: 2; }
</style>
</head>
<body>
<header>
  <label>Follow micro-batch <input id="follow" type="number" min="0" placeholder="none"></label>
  <label><input id="transfers" type="checkbox" checked> transfers</label>
  <button id="all">whole timeline</button>
  <span id="legend"></span>
  <span class="faint">wheel zooms, dragging moves, a click follows a micro-batch, Escape lets it go</span>
  <span id="way"></span>
</header>
<canvas id="canvas"></canvas>
<div id="facts"></div>
)html";

inline constexpr char kHtmlScript[] = R"html(<script>
"use strict";
// Rows are flat lists; these are their strides and fields.
const BOX = 8, KIND = 0, STAGE = 1, CHUNK = 2, MICRO = 3, COPY = 4, PAIR = 5, BEGIN = 6, END = 7;
const MOVE = 9, M_FORWARD = 0, M_SEND = 1, M_STAGE = 2, M_MICRO = 3, M_PEER = 4, M_COPY = 5, M_BEGIN = 6, M_END = 7, M_BYTES = 8;
const FORWARD = 0, BACKWARD = 1, INPUT_GRADIENT = 2, WEIGHT_GRADIENT = 3;
const LEFT = 76, RIGHT = 16, HEAD = 48, AXIS = 26;
const canvas = document.getElementById("canvas"), paint = canvas.getContext("2d");
const facts = document.getElementById("facts"), follow = document.getElementById("follow");
const showTransfers = document.getElementById("transfers"), wayText = document.getElementById("way");

// Latest end among the first entries of a list: ascending, so that what is in view is found by halving.
function endsUntil(list, stride, field) {
  const ends = new Float64Array(list.length / stride);
  let latest = 0;
  for (let i = 0; i < ends.length; ++i) ends[i] = latest = Math.max(latest, list[i * stride + field]);
  return ends;
}
// Number of entries that have ended before `ns`: the place of the first that has not.
function endedBefore(ends, ns) {
  let low = 0, high = ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] < ns) low = middle + 1; else high = middle;
  }
  return low;
}

let end = 1, rowsInAll = 0;
for (const chart of DATA.charts) {
  rowsInAll += chart.rows.length;
  chart.ways = new Map();
  for (const row of chart.rows) {
    row.ends = endsUntil(row.boxes, BOX, END);
    row.moveEnds = endsUntil(row.transfers, MOVE, M_END);
    end = Math.max(end, row.ends.at(-1) ?? 0, row.moveEnds.at(-1) ?? 0);
  }
}
let from = 0, to = end, width = 0, pitch = 20;

// Rows fill the window as long as they can be told apart; beyond that the page scrolls.
function rowPitch() {
  const room = window.innerHeight - canvas.offsetTop - DATA.charts.length * (HEAD + AXIS);
  return Math.max(rowsInAll > 400 ? 3 : 9, Math.min(36, Math.floor(room / rowsInAll)));
}

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

// --- What waited for what ---

// A box as {r: row, i: place in its list, and its fields}.
function boxOf(chart, r, i) {
  const b = chart.rows[r].boxes;
  return {r, i, kind: b[i + KIND], stage: b[i + STAGE], micro: b[i + MICRO], copy: b[i + COPY], begin: b[i + BEGIN], end: b[i + END]};
}

// All boxes of a micro-batch in order of time, each with `cause`, the box whose result it had to have, and `idle`, since
// when its rank had nothing to do. The last few are kept.
function wayOf(chart, micro) {
  if (chart.ways.has(micro)) return chart.ways.get(micro);
  const way = [];
  chart.rows.forEach((row, r) => {
    for (let i = 0; i < row.boxes.length; i += BOX) {
      if (row.boxes[i + MICRO] === micro && row.boxes[i + KIND] <= WEIGHT_GRADIENT) way.push(boxOf(chart, r, i));
    }
  });
  way.sort((a, b) => a.begin - b.begin);
  const backward = kind => kind === BACKWARD || kind === INPUT_GRADIENT;
  for (const box of way) {
    const causes = way.filter(other => other.copy === box.copy && (
      box.kind === FORWARD ? other.kind === FORWARD && other.stage === box.stage - 1 :
      box.kind === WEIGHT_GRADIENT ? other.kind === INPUT_GRADIENT && other.stage === box.stage :
      backward(other.kind) ? other.stage === box.stage + 1 : other.kind === FORWARD && other.stage === box.stage));
    box.cause = causes.reduce((latest, other) => latest && latest.end >= other.end ? latest : other, null);
    const before = box.i / BOX;
    box.idle = before > 0 ? Math.min(chart.rows[box.r].ends[before - 1], box.begin) : 0;
  }
  if (chart.ways.size >= 8) chart.ways.clear();
  chart.ways.set(micro, way);
  return way;
}

// How a rank's idle time before a box falls to the work of another rank and to the way from there.
function waitOf(box) {
  if (!box.cause || box.cause.r === box.r || box.idle >= box.begin) return null;
  const arrived = Math.min(Math.max(box.cause.end, box.idle), box.begin);
  return {from: box.idle, computed: arrived, to: box.begin};
}

function describeWay(chart, micro) {
  const way = wayOf(chart, micro);
  if (way.length === 0) return "";
  const perRank = new Map();
  let computing = 0, moving = 0;
  for (const box of way) {
    const wait = waitOf(box);
    if (!wait) continue;
    computing += wait.computed - wait.from;
    moving += wait.to - wait.computed;
    perRank.set(box.r, (perRank.get(box.r) ?? 0) + wait.to - wait.from);
  }
  const last = Math.max(...way.map(box => box.end));
  let text = "micro-batch " + micro + " takes " + duration(last - way[0].begin) + ", from " + duration(way[0].begin) + " to " + duration(last);
  if (perRank.size === 0) return text + "; no rank waits for it";
  text += "; ranks wait " + duration(computing + moving) + " for it (" + duration(computing) + " while others compute it, " +
    duration(moving) + " while it moves)";
  const most = [...perRank].sort((a, b) => b[1] - a[1])[0];
  return text + ", the longest rank " + most[0] + " with " + duration(most[1]);
}

// --- Drawing ---

function style(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
let colors = {};

function draw() {
  colors = Object.fromEntries(["text", "faint", "lane", "grid", "path", "activation", "gradient"].map(name => [name, style("--" + name)]));
  const micro = follow.value === "" ? -1 : Number(follow.value);
  wayText.textContent = micro < 0 ? "" :
    DATA.charts.map(chart => (DATA.charts.length > 1 ? chart.title + ": " : "") + describeWay(chart, micro)).join(" \u2003 ");
  pitch = rowPitch();
  width = canvas.clientWidth;
  const height = panelTop(DATA.charts.length);
  const ratio = Math.min(window.devicePixelRatio || 1, 16000 / height);  // browsers refuse larger canvases
  canvas.style.height = height + "px";
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  paint.setTransform(ratio, 0, 0, ratio, 0, 0);
  paint.clearRect(0, 0, width, height);
  DATA.charts.forEach((chart, i) => drawPanel(chart, panelTop(i), micro));
}

function drawPanel(chart, top, micro) {
  paint.textAlign = "left";
  paint.fillStyle = colors.text;
  paint.font = "600 15px system-ui, sans-serif";
  paint.fillText(chart.title, 16, top + 20);
  paint.fillStyle = colors.faint;
  paint.font = "12px system-ui, sans-serif";
  paint.fillText(chart.caption, 16, top + 38, width - 32);
  top += HEAD;
  drawLanes(chart, top);
  drawAxis(top, top + chart.rows.length * pitch);
  paint.save();
  paint.beginPath();
  paint.rect(LEFT, top, width - LEFT - RIGHT, chart.rows.length * pitch);
  paint.clip();
  chart.rows.forEach((row, r) => drawRow(row, top + r * pitch, micro));
  if (micro >= 0) drawWay(chart, top, wayOf(chart, micro));
  paint.restore();
}

function drawLanes(chart, top) {
  const font = Math.min(12, pitch), every = Math.ceil(10 / pitch);
  paint.textAlign = "right";
  paint.font = Math.max(font, 9) + "px system-ui, sans-serif";
  chart.rows.forEach((row, r) => {
    paint.fillStyle = colors.lane;
    paint.fillRect(LEFT, top + r * pitch, width - LEFT - RIGHT, boxHeight());
    if (r % every > 0) return;
    paint.fillStyle = colors.faint;
    paint.fillText("rank " + r, LEFT - 8, top + r * pitch + boxHeight() / 2 + font * 0.36);
  });
}

function drawAxis(top, bottom) {
  const raw = (to - from) / Math.max(1, (width - LEFT - RIGHT) / 110), power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = Math.max(1, [1, 2, 5, 10].map(f => f * power).find(d => d >= raw));
  paint.textAlign = "center";
  paint.font = "11px system-ui, sans-serif";
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
    paint.fillStyle = colors.grid;
    paint.fillRect(x(t), top, 1, bottom - top + 4);
    paint.fillStyle = colors.faint;
    paint.fillText(t === 0 ? "0" : duration(t), x(t), bottom + 16);
  }
}

const strip = () => showTransfers.checked && pitch > 5 ? Math.max(1, Math.floor(pitch / 9)) : 0;
const boxHeight = () => pitch - 2 * strip() - (pitch > 14 ? 4 : pitch > 5 ? 2 : 1);

// What is too narrow to be seen apart is skipped by halving, so that drawing takes as long as the picture is wide,
// whatever the number of boxes in view.
function drawRow(row, y, micro) {
  const height = boxHeight(), list = row.boxes;
  let drawn = -1;
  for (let k = endedBefore(row.ends, from); k < row.ends.length && list[k * BOX + BEGIN] < to;) {
    const i = k * BOX, left = x(list[i + BEGIN]), right = x(list[i + END]);
    if (right < drawn + 1) { k = Math.max(k + 1, endedBefore(row.ends, time(drawn + 1))); continue; }
    drawn = Math.max(drawn, right);
    ++k;
    if (micro >= 0) paint.globalAlpha = list[i + MICRO] !== micro ? 0.22 : 1;
    drawBox(list, i, left, right, y, height);
    if (list[i + PAIR] && k < row.ends.length) {
      paint.fillStyle = colors.text;
      const wide = x(list[k * BOX + END]) - left, inset = wide > 16 ? 3 : 0, thick = Math.max(1, height / 14);
      paint.fillRect(left + inset, y + height - thick, wide - 1 - 2 * inset, thick);
    }
  }
  paint.globalAlpha = 1;
  if (strip() > 0) [0, 1].forEach(forward => drawTransfers(row, forward, y + height + (forward ? 0 : strip()), micro));
}

function drawBox(list, i, left, right, y, height) {
  const [color, ink] = DATA.kinds[list[i + KIND]].colors[list[i + CHUNK]], wide = right - left;
  paint.fillStyle = color;
  paint.fillRect(left, y, Math.max(wide - (wide > 5 ? 1 : wide > 2 ? 0.4 : 0), 1), height);
  if (list[i + MICRO] < 0) return;
  const number = String(list[i + MICRO]), font = Math.min(height * 0.62, 13, (wide - 3) / (0.62 * number.length));
  if (font < 6) return;
  paint.textAlign = "center";
  paint.fillStyle = ink;
  paint.font = font + "px system-ui, sans-serif";
  const middle = (Math.max(left, LEFT) + Math.min(right, width - RIGHT)) / 2;
  paint.fillText(number, middle, y + height / 2 + font * 0.36);
}

// Messages that can't be seen apart, skipped ones between them too, become one line.
function drawTransfers(row, forward, y, micro) {
  const list = row.transfers;
  let begin = -1, drawn = -1, faded = false;
  const close = () => {
    if (drawn < 0) return;
    paint.globalAlpha = faded ? 0.22 : 1;
    paint.fillRect(begin, y, drawn - begin, strip());
  };
  paint.fillStyle = forward ? colors.activation : colors.gradient;
  for (let k = endedBefore(row.moveEnds, from); k < row.moveEnds.length && list[k * MOVE + M_BEGIN] < to;) {
    const i = k * MOVE, left = x(list[i + M_BEGIN]), right = Math.max(x(list[i + M_END]), left + 1);
    if (list[i + M_FORWARD] !== forward) { ++k; continue; }
    if (right < drawn + 1) { k = Math.max(k + 1, endedBefore(row.moveEnds, time(drawn + 1))); continue; }
    ++k;
    const fades = micro >= 0 && list[i + M_MICRO] !== micro;
    if (drawn < 0 || left > drawn + 2 || fades !== faded) {
      close();
      begin = left;
      faded = fades;
    }
    drawn = right;
  }
  close();
  paint.globalAlpha = 1;
}

// Slanted lines over an idle stretch of a lane.
function hatch(left, right, y, height, distance) {
  paint.save();
  paint.beginPath();
  paint.rect(left, y, right - left, height);
  paint.clip();
  paint.globalAlpha = 0.14;
  paint.fillStyle = paint.strokeStyle = colors.path;
  paint.fillRect(left, y, right - left, height);
  paint.globalAlpha = 0.8;
  paint.lineWidth = 1;
  paint.beginPath();
  const begin = Math.max(left, LEFT) - height, stop = Math.min(right, width);
  for (let at = begin - begin % distance; at < stop; at += distance) {
    paint.moveTo(at, y + height);
    paint.lineTo(at + height, y);
  }
  paint.stroke();
  paint.restore();
}

// The followed micro-batch: its boxes, the way from each to those that needed its result, and hatched the time for which
// ranks were idle until it came: wide while another rank computed it, narrow while it was under way.
function drawWay(chart, top, way) {
  const height = boxHeight(), rowTop = box => top + box.r * pitch, line = box => rowTop(box) + height * 0.88;
  for (const box of way) {
    const wait = waitOf(box);
    if (wait && wait.computed > wait.from) hatch(x(wait.from), x(wait.computed), rowTop(box), height, 7);
    if (wait && wait.to > wait.computed) hatch(x(wait.computed), x(wait.to), rowTop(box), height, 3);
    drawBox(chart.rows[box.r].boxes, box.i, x(box.begin), x(box.end), rowTop(box), height);
  }
  paint.strokeStyle = colors.path;
  paint.lineWidth = pitch > 14 ? 2 : 1.3;
  paint.beginPath();
  for (const box of way) {
    if (box.kind === WEIGHT_GRADIENT) continue;
    paint.moveTo(x(box.cause?.end ?? box.begin), line(box.cause ?? box));  // below the numbers
    paint.lineTo(x(box.begin), line(box));
    paint.lineTo(x(box.end), line(box));
  }
  paint.stroke();
}

// --- Facts under the pointer ---

// What lies under the pointer: {chart, box}, or null.
function boxAt(px, py) {
  for (let c = 0; c < DATA.charts.length; ++c) {
    const chart = DATA.charts[c], r = Math.floor((py - panelTop(c) - HEAD) / pitch);
    if (r < 0 || r >= chart.rows.length || px < LEFT) continue;
    const row = chart.rows[r], t = time(px);
    for (let k = endedBefore(row.ends, t); k < row.ends.length && row.boxes[k * BOX + BEGIN] <= t; ++k) {
      if (row.boxes[k * BOX + END] >= t) return {chart, box: boxOf(chart, r, k * BOX)};
    }
  }
  return null;
}

const letter = box => DATA.kinds[box.kind].name + " of stage " + box.stage;

function factsOf({chart, box}) {
  const lines = [DATA.kinds[box.kind].name + (box.micro >= 0 ? " of micro-batch " + box.micro : "")];
  lines.push("rank " + box.r + (box.stage >= 0 ? ", stage " + box.stage : "") + (box.copy > 0 ? ", copy " + box.copy : ""));
  lines.push("takes " + duration(box.end - box.begin) + ", from " + duration(box.begin) + " to " + duration(box.end));
  const same = box.micro < 0 ? null : wayOf(chart, box.micro).find(other => other.r === box.r && other.i === box.i);
  const before = box.i / BOX, idle = before > 0 ? chart.rows[box.r].ends[before - 1] : 0;
  if (box.begin > idle) lines.push("the rank was idle for " + duration(box.begin - idle) + " before it");
  const wait = same ? waitOf(same) : null;
  if (wait && wait.computed > wait.from) {
    lines.push("  " + duration(wait.computed - wait.from) + " of it until rank " + same.cause.r + " had done the " + letter(same.cause));
  }
  if (wait && wait.to > wait.computed) lines.push("  " + duration(wait.to - wait.computed) + " of it while the result moved or stood behind others");
  lines.push(...transferFacts(chart.rows[box.r].transfers, box), ...otherFacts(chart, box));
  return lines.join("\n");
}

function transferFacts(list, box) {
  const lines = [], direction = box.kind === FORWARD ? 1 : box.kind <= INPUT_GRADIENT ? 0 : -1;
  for (let j = 0; j < list.length; j += MOVE) {
    if (list[j + M_MICRO] !== box.micro || list[j + M_STAGE] !== box.stage || list[j + M_COPY] !== box.copy || list[j + M_FORWARD] !== direction) continue;
    lines.push((list[j + M_SEND] ? "sent to rank " : "received from rank ") + list[j + M_PEER] + (list[j + M_BYTES] ? ", " + size(list[j + M_BYTES]) : "") +
      ", from " + duration(list[j + M_BEGIN]) + " to " + duration(list[j + M_END]));
  }
  return lines;
}

// The same action in the other timelines.
function otherFacts(chart, box) {
  const lines = [];
  for (const other of DATA.charts) {
    if (other === chart || box.micro < 0) continue;
    const twin = wayOf(other, box.micro).find(b => b.kind === box.kind && b.stage === box.stage && b.copy === box.copy);
    if (!twin) continue;
    const late = twin.begin - box.begin;
    lines.push("in '" + other.title + "': takes " + duration(twin.end - twin.begin) + ", " +
      (late === 0 ? "begins at the same time" : "begins " + duration(Math.abs(late)) + (late > 0 ? " later" : " earlier")));
  }
  return lines;
}

function showFacts(event) {
  const area = canvas.getBoundingClientRect(), found = boxAt(event.clientX - area.left, event.clientY - area.top);
  facts.style.display = found ? "block" : "none";
  if (!found) return;
  facts.textContent = factsOf(found);
  facts.style.left = Math.max(8, Math.min(event.clientX + 14, window.innerWidth - facts.offsetWidth - 8)) + "px";
  facts.style.top = Math.max(8, Math.min(event.clientY + 14, window.innerHeight - facts.offsetHeight - 8)) + "px";
}

// --- Moving about ---

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
  const found = boxAt(event.clientX - area.left, event.clientY - area.top);
  if (found && found.box.micro >= 0) follow.value = found.box.micro;
  if (!found) follow.value = "";
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

document.getElementById("legend").innerHTML = DATA.legend.map(entry =>
  "<span>" + entry.colors.map(color => `<span class="swatch" style="background:${color}"></span>`).join("") + " " + entry.name + "</span>").join("");
document.title = DATA.charts.map(chart => chart.title).join(" / ");
readAddress();
draw();
</script>
</body>
</html>
)html";

}  // namespace sluice
