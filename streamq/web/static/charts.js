// Three charts over the last hour: what the samples say, and in words for who does not see them.
import { $, say, count, rate, second } from "./dom.js";

// All that ends a mail, or an attempt, and what may have been sent twice: name, tone, dashes. The first four are always
// there, the others where it has ever happened.
export const OUTCOMES = [
  ["relayed", "b"], ["deferred", "c"], ["throttled", "e"], ["bounced", "d"],
  ["delivered", "b", [6, 4]], ["expired", "f"], ["rejected", "a"], ["failed", "d", [6, 4]], ["ambiguous", "e", [2, 3]],
  ["cancelled", "dim"], ["superseded", "dim", [6, 4]], ["duplicate", "dim", [2, 3]], ["expanded", "f", [2, 3]],
];
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const hour = (ms) => new Date(ms).toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600]; // between ticks
const WHOLE = Array.from({ length: 13 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat(); // no half a mail

// What stands at an axis' ticks, which are so far apart: each says something else than its neighbours.
export const times = (ticks, step) => ticks.map((at) => (step < 60 ? second(at * 1000) : hour(at * 1000)));
export function numbers(ticks, step) {
  const most = Math.max(...ticks.map(Math.abs));
  const [size, unit] = most >= 1e6 ? [1e6, "M"] : most >= 1e3 ? [1e3, "k"] : [1, ""];
  let digits = 0;
  while (digits < 6 && Math.abs((step / size) * 10 ** digits - Math.round((step / size) * 10 ** digits)) > 1e-6) digits += 1;
  return ticks.map((value) => (value ? `${(value / size).toFixed(digits)}${unit}` : "0"));
}

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
  put("outcomes", x, OUTCOMES.map(([name, tone, dash]) => [name, tone, rates((flow) => flow.outcomes[name] || 0, 60), dash])
    .filter(([name], at) => at < 4 || samples[samples.length - 1].totals[name]), (value) => Number(value.toPrecision(3)).toString());
  const names = Object.keys(samples[samples.length - 1].depth);
  put("depth", x, names.map((name, at) => [name, "eafcbd"[at % 6], samples.map((one) => one.depth[name] ?? 0)]), count, WHOLE);
}

// What they say is not of now any more, but of that time.
export function old(when) {
  for (const place of document.querySelectorAll(".chart")) {
    const said = place.getAttribute("aria-label");
    if (said) place.setAttribute("aria-label", said.replace(". Now: ", `. At ${when}: `));
    const at = place.querySelector(".u-legend .u-value");
    if (at) say(at, when);
  }
}

const dashes = (dash) => (!dash ? "solid" : dash[0] < 3 ? "dotted" : "dashed"); // of a legend's squares

function put(name, x, lines, words, incrs) {
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
    width, height: 160, legend: { live: true, markers: { dash: (_, nth) => dashes(lines[nth - 1]?.[3]) } },
    cursor: { y: false },
    scales: { x: { time: true }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [{ ...axis, space: 70, incrs: SECONDS, values: (_, ticks, at, space, step) => times(ticks, step) },
      { ...axis, size: 48, ...(incrs ? { incrs } : {}), values: (_, ticks, at, space, step) => numbers(ticks, step) }],
    series: [{ label: "at", value: (_, at) => (at === null ? "now" : second(at * 1000)) },
      ...lines.map(([label, tone, , dash]) => ({ label, stroke: colour(tone), dash, width: 2, points: { show: false }, value: (u, value, at, index) => words(index === null || index === undefined ? u.data[at][u.data[at].length - 1] ?? 0 : value ?? 0) }))],
  }, data, place);
  charts[name] = { plot, labels };
}

function anew() {
  for (const name of Object.keys(charts)) { charts[name].plot.destroy(); delete charts[name]; }
  draw();
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", anew);
addEventListener("resize", draw);
