// A trace as a page that needs nothing but a browser.
#include <fmt/format.h>

#include <fstream>

#include "ashlar/allocation_trace.hpp"
#include "ashlar/error.hpp"

namespace ashlar {
namespace {

constexpr std::string_view kHead = R"html(<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --page: #fff; --text: #1d2430; --faint: #667; --line: #d5d9e0; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171c; --text: #e6e9ee; --faint: #99a1ad; --line: #343b46; }
}
body { margin: 2rem; background: var(--page); color: var(--text); font: 14px system-ui, sans-serif; }
h1 { font-size: 1.2rem; margin: 0 0 .3rem; }
p { color: var(--faint); margin: 0 0 1rem; }
canvas { touch-action: pan-y; width: 100%; height: 60vh; display: block; }
#legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .8rem 0; }
#legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; }
#tip { min-height: 12em; white-space: pre-wrap; overflow-wrap: anywhere; font-family: ui-monospace, monospace; }
</style>
)html";

constexpr std::string_view kPlot = R"html(<p id="summary"></p>
<canvas id="plot"></canvas><div id="legend"></div><div id="tip"></div>
<script>
)html";

constexpr std::string_view kTail = R"html(
const colors = ['#3b7dd8','#e08a2e','#8a63d2','#2aa198','#4fa34f','#d4537e','#9a8c7c','#c9b037'];
const kinds = categories.length;
let names, ops, n, sums, total, peak, peakAt;
function show(trace) {  // {names, ops}
  ({names, ops} = trace);
  n = ops.length; peak = peakAt = 0;
  sums = new Float64Array((n + 1) * kinds); total = new Float64Array(n + 1);
  for (let i = 0; i < n; i++) {
    const [bytes, kind] = ops[i];
    for (let k = 0; k < kinds; k++) sums[(i + 1) * kinds + k] = sums[i * kinds + k];
    sums[(i + 1) * kinds + kind] += bytes;
    total[i + 1] = total[i] + bytes;
    if (total[i + 1] > peak) { peak = total[i + 1]; peakAt = i + 1; }
  }
  document.getElementById('summary').textContent =
      `${n} operations, peak ${size(peak)} after operation ${peakAt}`;
  draw(); describe(peakAt);
}
function size(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let u = 0;
  while (bytes >= 1024 && u < 4) { bytes /= 1024; u++; }
  return bytes.toFixed(u ? 2 : 0) + ' ' + units[u];
}
const canvas = document.getElementById('plot'), tip = document.getElementById('tip');
const style = name => getComputedStyle(document.documentElement).getPropertyValue(name);
function draw(mark) {
  const scale = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
  canvas.width = w * scale; canvas.height = h * scale;
  const g = canvas.getContext('2d');
  g.scale(scale, scale);
  for (let x = 0; x < w; x++) {
    const from = Math.floor(x / w * (n + 1)), to = Math.max(from + 1, Math.floor((x + 1) / w * (n + 1)));
    let at = from;
    for (let i = from; i < to && i <= n; i++) if (total[i] > total[at]) at = i;
    let y = h;
    for (let k = 0; k < kinds; k++) {
      const tall = sums[at * kinds + k] / (peak || 1) * (h - 18);
      g.fillStyle = colors[k];
      g.fillRect(x, y - tall, 1, tall);
      y -= tall;
    }
  }
  g.strokeStyle = style('--line'); g.fillStyle = style('--faint'); g.font = '12px system-ui';
  for (let q = 1; q <= 4; q++) {
    const y = h - q / 4 * (h - 18);
    g.beginPath(); g.moveTo(0, y); g.lineTo(w, y); g.stroke();
    g.fillText(size(peak * q / 4), 4, y - 4);
  }
  if (mark === undefined) return;
  const x = (mark + .5) / (n + 1) * w;
  g.strokeStyle = style('--text'); g.beginPath(); g.moveTo(x, 0); g.lineTo(x, h); g.stroke();
}
function describe(at) {
  const held = new Map();
  for (let i = 0; i < at; i++) {
    const [bytes, kind, name] = ops[i], key = categories[kind] + (names[name] ? ': ' + names[name] : '');
    held.set(key, (held.get(key) || 0) + bytes);
  }
  const top = [...held].filter(e => e[1] > 0).sort((a, b) => b[1] - a[1]).slice(0, 12);
  tip.textContent = `after operation ${at} of ${n}: ${size(total[at])}\n` +
      top.map(e => size(e[1]).padStart(12) + '  ' + e[0]).join('\n');
}
categories.forEach((name, k) => {
  const item = document.createElement('span'), box = document.createElement('i');
  box.style.background = colors[k];
  item.append(box, name);
  document.getElementById('legend').append(item);
});
canvas.onpointerdown = canvas.onpointermove = e => {
  const at = Math.min(n, Math.floor(e.offsetX / canvas.clientWidth * (n + 1)));
  draw(at); describe(at);
};
canvas.onpointerleave = e => {
  if (e.pointerType === 'mouse') { draw(); describe(peakAt); }  // a finger's mark stays
};
addEventListener('resize', () => draw());
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => draw());
show(own);
</script></body></html>
)html";

/// A JavaScript string; '<' is escaped so that no name ends the script.
std::string script_text(std::string_view text) {
  std::string result = "\"";
  for (const char c : text)
    if (c == '"' || c == '\\' || c == '<' || static_cast<unsigned char>(c) < 32)
      result += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      result += c;
  return result + '"';
}

}  // namespace

void write_timeline(const Trace& trace, const std::filesystem::path& path,
                    const TimelinePage& page) {
  std::ofstream file(path);
  file << kHead << fmt::format("<title>{0}</title></head><body>\n<h1>{0}</h1>", page.title)
       << page.above << kPlot << "const categories = [";
  for (int i = 0; i < kCategories; ++i)
    file << script_text(name_of(static_cast<Category>(i))) << ',';
  file << "];\nconst own = {names: [";
  for (const std::string& name : trace.names) file << script_text(name) << ',';
  file << "],\nops: [\n";
  for (const TraceOperation& operation : trace.operations)
    file << fmt::format("[{},{},{}],\n", operation.allocate ? operation.bytes : -operation.bytes,
                        static_cast<int>(operation.category), operation.name);
  file << "]};\n" << kTail << std::flush;
  if (!file)
    throw InvalidArgument(fmt::format("{}: the timeline cannot be written", path.string()));
}

}  // namespace ashlar
