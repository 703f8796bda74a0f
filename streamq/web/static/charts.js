// Three charts over the last hour: what the samples say, and in words for who does not see them.
import { $, count, rate } from "./dom.js";

const OUTCOMES = [["relayed", "b"], ["deferred", "c"], ["throttled", "e"], ["bounced", "d"], ["expired", "f"], ["rejected", "a"]];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const hour = (ms) => new Date(ms).toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

const samples = [];
const charts = {};

export function know(found) {
  for (const sample of found) {
    if (sample && (!samples.length || sample.at_ms > samples[samples.length - 1].at_ms)) samples.push(sample);
  }
  if (samples.length > 720) samples.splice(0, samples.length - 720);
}

// Rates are made in one place, which `streamq top` asks, too: a sample brings its own.
const rates = (of, times = 1) => samples.map((sample) => (sample.flow ? of(sample.flow) * times : null));

export function now() {
  const last = (values) => values[values.length - 1] ?? null;
  return { in: last(rates((flow) => flow.in)), out: last(rates((flow) => flow.out)) };
}

export function draw() {
  if (samples.length < 2) return;
  const x = samples.map((sample) => sample.at_ms / 1000);
  put("rates", x, [
    ["in", "a", rates((flow) => flow.in)],
    ["out", "b", rates((flow) => flow.out)],
  ], (value) => rate(value));
  put("outcomes", x, OUTCOMES.map(([name, tone]) => [name, tone, rates((flow) => flow.outcomes[name] || 0, 60)])
    .filter(([name], at) => at < 4 || samples[samples.length - 1].totals[name]), (value) => Number(value.toPrecision(3)).toString());
  const names = Object.keys(samples[samples.length - 1].depth);
  put("depth", x, names.map((name, at) => [name, "eafcbd"[at % 6], samples.map((one) => one.depth[name] ?? 0)]), count);
}

function put(name, x, lines, words) {
  const place = $(`chart-${name}`);
  const labels = lines.map(([label]) => label).join("|");
  const data = [x, ...lines.map(([, , values]) => values)];
  const said = lines.map(([label, , values]) => `${label} ${values[values.length - 1] === null ? "unknown" : words(values[values.length - 1])}`).join(", ");
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `${place.parentElement.querySelector("figcaption").textContent}. Now: ${said}`);
  const width = Math.max(200, place.clientWidth);
  let chart = charts[name];
  if (chart && chart.labels === labels) {
    if (chart.plot.width !== width) chart.plot.setSize({ width, height: 160 });
    chart.plot.setData(data);
    return;
  }
  chart?.plot.destroy();
  const axis = { stroke: colour("dim"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 }, font: "11px system-ui" };
  const plot = new uPlot({
    width, height: 160, legend: { live: true },
    cursor: { y: false },
    scales: { x: { time: true }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [{ ...axis, values: (_, splits) => splits.map((at) => hour(at * 1000)) }, { ...axis, size: 48, values: (_, splits) => splits.map((value) => (value >= 1e6 ? `${value / 1e6}M` : value >= 1e3 ? `${value / 1e3}k` : value)) }],
    series: [{ label: "at", value: (_, at) => (at === null ? "now" : hour(at * 1000)) },
      ...lines.map(([label, tone]) => ({ label, stroke: colour(tone), width: 2, points: { show: false }, value: (u, value, at, index) => words(index === null || index === undefined ? u.data[at][u.data[at].length - 1] ?? 0 : value ?? 0) }))],
  }, data, place);
  charts[name] = { plot, labels };
}

function anew() {
  for (const name of Object.keys(charts)) { charts[name].plot.destroy(); delete charts[name]; }
  draw();
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", anew);
addEventListener("resize", draw);
