// The waterfall of a run: a bar for each call, the floor, and the same figures as a table.

import { h, scrollable } from "./dom.js";
import { formatSeconds } from "./format.js";
import { overhead, waterfall } from "./waterfall.js";

const KINDS = {
  prefill: "reads, until its first token",
  decode: "writes",
  hidden: "reads early, while the panel runs",
  tool: "waits for a tool",
};

/** The waterfall of a run that succeeded. */
export function waterfallView(run) {
  const { usage, fusion } = run;
  const chart = waterfall(usage, fusion.timings, fusion.tool_calls);
  const shown = new Set(chart.rows.flatMap((row) => row.segments.map((each) => each.kind)));
  const legend = Object.entries(KINDS)
    .filter(([kind]) => shown.has(kind))
    .map(([kind, words]) => h("li", {}, h("i", { className: `bar-${kind}` }), words));
  return h(
    "div",
    { className: "timeline" },
    h("p", { className: "number" }, timeText(fusion.timings)),
    h("div", { className: "fall", "aria-hidden": "true" }, ...chart.rows.map((row) => bar(row, chart)), axis(chart)),
    h(
      "ul",
      { className: "legend small muted", "aria-hidden": "true" },
      ...legend,
      h("li", {}, h("i", { className: "floor-key" }), "floor: the slowest member, then the judge's writing"),
    ),
    h("details", { className: "as-table" }, h("summary", { className: "small muted" }, "As a table"), table(chart)),
  );
}

function timeText(timings) {
  const { ratio, overheadMs } = overhead(timings);
  const first = formatSeconds(timings.first_token_ms ?? timings.total_ms);
  const early = timings.early_prefill_tokens;
  const read = early
    ? ` The judge read ${early} tokens of its prompt early and ${timings.late_prefill_tokens} after the panel.`
    : "";
  return (
    `${formatSeconds(timings.total_ms)} in total: the floor of ${formatSeconds(timings.floor_ms)} and` +
    ` ${formatSeconds(overheadMs)} of overhead (${ratio.toFixed(2)} times the floor).` +
    ` The first token came after ${first}.${read}`
  );
}

function bar(row, chart) {
  const track = h(
    "div",
    { className: "track" },
    ...row.segments.map((each) =>
      atPosition(h("i", { className: `bar-${each.kind}` }), each.fromMs / chart.endMs, each.toMs / chart.endMs),
    ),
    atPosition(h("span", { className: "floor" }), chart.floorMs / chart.endMs),
  );
  return h(
    "div",
    { className: `fall-row ${row.side}` },
    h("span", { className: "fall-name" }, h("b", { className: "name" }, row.name), ` ${row.does}`),
    track,
    h("span", { className: "fall-time number" }, formatSeconds(row.totalMs)),
  );
}

function axis(chart) {
  const mark = (ms) => h("span", { className: "tick number" }, formatSeconds(ms));
  const marks = chart.ticks.map((ms) => atPosition(mark(ms), ms / chart.endMs));
  return h("div", { className: "fall-row axis" }, h("span"), h("div", { className: "track" }, ...marks), h("span"));
}

function atPosition(element, from, to = from) {
  element.style.setProperty("--from", from);
  element.style.setProperty("--share", to - from);
  return element;
}

function table(chart) {
  const head = ["Model", "Task", "Start", "Prefill", "Decode", "Prompt tokens", "Cached tokens", "Completion tokens"];
  const rows = chart.rows.map((row) => [
    row.name,
    row.does,
    formatSeconds(row.startMs),
    formatSeconds(row.readMs),
    formatSeconds(row.wroteMs),
    row.promptTokens,
    row.cachedTokens,
    row.completionTokens,
  ]);
  return scrollable(
    "Where the time went, as a table",
    h(
      "table",
      { className: "number" },
      h("thead", {}, h("tr", {}, ...head.map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((cell) => h("td", {}, String(cell)))))),
    ),
  );
}
