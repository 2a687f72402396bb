// The report as a page that needs nothing but a browser: the timeline of a trace, with other
// stages and ranks above it.
#include <fmt/format.h>

#include "base/markup.hpp"
#include "report/step_report.hpp"

namespace ashlar {
namespace {

constexpr std::string_view kSliders = R"html(
<style>
#grid { display: grid; grid-template-columns: max-content 1fr; gap: .4rem 1rem; max-width: 40rem; }
#grid input { width: 100%; }
#bars { margin: 1rem 0; max-width: 60rem; }
#bars div { display: grid; grid-template-columns: 9.5rem 6.5rem 1fr; gap: .6rem; align-items: center;
            font-variant-numeric: tabular-nums; }
#bars b { font-weight: normal; text-align: right; }
#bars i { display: block; height: .9em; border-radius: 2px; }
@media (max-width: 30rem) { body { margin: 1rem; } #bars div { grid-template-columns: 7rem 5.5rem 1fr; } }
</style>
<div id="grid"><label for="stage">ZeRO stage</label><input id="stage" type="range">
<label for="ranks">ranks</label><input id="ranks" type="range"></div>
<p id="which"></p><div id="bars"></div>
<script>
(() => {
const paint = ['#3b7dd8','#e08a2e','#8a63d2','#2aa198','#4fa34f','#d4537e','#9a8c7c','#c9b037','#777','#aaa'];
const by = id => document.getElementById(id);
const stages = [...new Set(reports.map(r => r.stage))].sort((a, b) => a - b);
const worlds = [...new Set(reports.map(r => r.ranks))].sort((a, b) => a - b);
const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
function text(bytes) {
  let u = 0;
  while (bytes >= 1024 && u < 5) { bytes /= 1024; u++; }
  return bytes.toFixed(u ? 2 : 0) + ' ' + units[u];
}
by('stage').max = stages.length - 1; by('stage').value = stages.indexOf(chosen.stage);
by('ranks').max = worlds.length - 1; by('ranks').value = worlds.indexOf(chosen.ranks);
function show() {
  const stage = stages[by('stage').value], ranks = worlds[by('ranks').value];
  const r = reports.find(r => r.stage === stage && r.ranks === ranks);
  if (!r) return;
  by('which').textContent = `stage ${stage}, ${ranks} rank(s): a rank needs ` +
      `${text(r.peak_bytes.total)} (${r.peak_bytes.total} bytes), most at ${r.peak.op}`;
  const parts = Object.entries(r.at_peak), most = Math.max(...parts.map(p => p[1]), 1);
  by('bars').replaceChildren(...parts.map(([name, bytes], k) => {
    const row = document.createElement('div'), label = document.createElement('span'),
          number = document.createElement('b'), bar = document.createElement('i');
    label.textContent = name.replaceAll('_', ' ');
    number.textContent = text(bytes);
    bar.style.background = paint[k];
    bar.style.width = 100 * bytes / most + '%';
    row.title = bytes + ' bytes';
    row.append(label, number, bar);
    return row;
  }));
}
/// The timeline below is of another stage; ranks are as chosen.
function follow() {
  const stage = stages[by('stage').value];
  if (!timelines[stage] && stage !== chosen.stage) return;
  by('whose').textContent = stage;
  window.show(timelines[stage] || own);
}
by('ranks').oninput = show;
by('stage').oninput = () => { show(); follow(); };
show();
})();
</script>
)html";

/// JSON inside a script: no name may end it.
std::string script_json(const nlohmann::ordered_json& json) {
  std::string text;
  for (const char c : json.dump()) text += c == '<' ? std::string("\\u003c") : std::string(1, c);
  return text;
}

/// As the page's own: bytes (negative: freed), category and name of each change.
nlohmann::ordered_json timeline_json(const Trace& trace) {
  nlohmann::ordered_json changes = nlohmann::ordered_json::array();
  for (const TraceOperation& o : trace.operations)
    changes.push_back({o.allocate ? o.bytes : -o.bytes, static_cast<int>(o.category), o.name});
  return {{"names", trace.names}, {"ops", std::move(changes)}};
}

}  // namespace

void write_html(const StepReport& report, const CompiledStep& step, const PageGrid& grid,
                const std::filesystem::path& path) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  all.push_back(to_json(report));
  for (const StepReport& other : grid.reports)
    if (other.stage != report.stage || other.footprint.ranks != report.footprint.ranks)
      all.push_back(to_json(other));
  nlohmann::ordered_json timelines = nlohmann::ordered_json::object();
  for (const auto& [stage, trace] : grid.timelines)
    if (stage != report.stage) timelines[std::to_string(stage)] = timeline_json(trace);
  TimelinePage page;
  page.title = fmt::format("{}, {} parameters, {}", markup(report.model),
                           report.footprint.parameters, report.precision);
  page.above = fmt::format(
      "<script>const reports = {};\nconst chosen = reports[0];\nconst timelines = {};</script>{}"
      "<h2 style=\"font-size:1.05rem\">Every buffer of the step as it comes and goes: stage "
      "<span id=\"whose\">{}</span>, {} rank(s)</h2>\n",
      script_json(all), script_json(timelines), kSliders, report.stage, report.footprint.ranks);
  write_timeline(planned_trace(step), path, page);
}

}  // namespace ashlar
