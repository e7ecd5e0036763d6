// The last hour as small charts: tokens a second, KV cache, requests, and memory, each with its figures in words.

import { fill, h, setText } from "./dom.js";
import { formatBytes, formatNumber, formatPercent } from "./machine_text.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 80;
const TONES = 8;

/** The charts of what `/api/figures` tells. */
export function hourCharts() {
  const charts = new Map();
  const span = h("p", { className: "small muted" });
  const place = h("div", { className: "hour" });
  const root = h("div", {}, span, place);
  return { root, show };

  function show(told) {
    setText(span, spanText(told));
    const wanted = told.times.length ? chartsOf(told) : [];
    if ([...charts.keys()].join() !== wanted.map((each) => each.title).join()) {
      charts.clear();
      for (const { title } of wanted) charts.set(title, chart(title));
      fill(place, [...charts.values()].map((each) => each.root));
    }
    for (const each of wanted) charts.get(each.title).show(told.times, each);
  }
}

/** The charts that there is something to show of: `{title, lines: [{name, values, tone}], most, format}`. */
export function chartsOf(told) {
  const by = (figures) => Object.entries(figures).map(([name, values], tone) => ({ name, values, tone: tone % TONES }));
  const requests = by({ served: told.in_flight, waiting: told.waiting });
  const memory = Object.entries(told.used_bytes).map(([device, values]) => ({
    title: device === "memory" ? "Memory in use" : `${device}: memory in use`,
    lines: by({ used: values }),
    most: told.total_bytes[device],
    format: formatBytes,
  }));
  const all = [
    { title: "Tokens a second", lines: by(told.tokens_per_s), format: formatNumber },
    { title: "KV cache in use", lines: by(told.kv_usage), most: 1, format: formatPercent },
    { title: "Requests", lines: requests, format: formatNumber },
    ...memory,
  ];
  return all.filter((each) => each.lines.length);
}

/** Over how long the figures go. */
export function spanText({ times, interval_s: everyS }) {
  const every = `a sample every ${everyS} s`;
  if (!times.length) return `The first figures come soon: ${every}, kept for an hour.`;
  const minutes = Math.round((times.at(-1) - times[0]) / 60);
  return minutes < 1 ? `The last minute, ${every}.` : `The last ${minutes === 1 ? "minute" : `${minutes} minutes`}, ${every}.`;
}

function chart(title) {
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const top = h("span", { className: "small muted number" });
  const legend = h("ul", { className: "machine-legend small" });
  const root = h("figure", { className: "hour-chart" }, h("figcaption", {}, h("h3", {}, title), top), picture, legend);
  return { root, show };

  function show(times, { lines, most, format }) {
    const known = lines.flatMap((each) => each.values.filter((value) => value !== null));
    const highest = most ?? Math.max(1, ...known);
    setText(top, `up to ${format(highest)}`);
    picture.replaceChildren(...lines.flatMap((each) => pathsOf(times, each, highest)));
    const words = lines.map((each) => `${each.name} ${figuresText(each.values, format)}`);
    picture.setAttribute("aria-label", `${title}: ${words.join("; ")}`);
    fill(
      legend,
      lines.map(({ name, values, tone }) =>
        h(
          "li",
          {},
          h("span", { className: `machine-swatch tone-${tone}`, "aria-hidden": "true" }),
          h("span", {}, h("span", { className: "name" }, name), " ", h("span", { className: "number muted" }, figuresText(values, format))),
        ),
      ),
    );
  }
}

/** The figure now and the highest, in words. */
export function figuresText(values, format) {
  const known = values.filter((value) => value !== null);
  const now = values.at(-1);
  if (!known.length) return "no figures";
  return `${now === null || now === undefined ? "no figure" : format(now)} now, at most ${format(Math.max(...known))}`;
}

/** The parts of a line between which a figure is missing. */
export function partsOf(times, values, highest) {
  const first = times[0];
  const spanS = Math.max(1, times.at(-1) - first);
  const parts = [[]];
  values.forEach((value, at) => {
    if (value === null) return parts.at(-1).length && parts.push([]);
    const x = ((times[at] - first) / spanS) * WIDTH;
    const y = HEIGHT - 1 - (Math.min(value, highest) / highest) * (HEIGHT - 2);
    return parts.at(-1).push([Number(x.toFixed(1)), Number(y.toFixed(1))]);
  });
  return parts.filter((part) => part.length);
}

function pathsOf(times, { values, tone }, highest) {
  return partsOf(times, values, highest).map((part) => {
    // A single figure has no length: it is drawn as a dot.
    const [x, y] = part[0];
    const points = part.length > 1 ? part : [[x, y], [x + 0.1, y]];
    const path = points.map((each) => each.join(",")).join(" ");
    return svg("polyline", { points: path, class: `hour-line tone-${tone}` });
  });
}

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
