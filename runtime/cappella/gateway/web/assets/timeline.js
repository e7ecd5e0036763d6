// A run's waterfall as elements: a bar for each call, the floor, and the same as a table.

import { h, scrollable } from "./dom.js";
import { seconds } from "./trouble.js";
import { againstFloor, waterfall } from "./waterfall.js";

const KINDS = {
  prefill: "reads, until its first token",
  decode: "writes",
  hidden: "reads early, hidden behind the panel",
};

/** The waterfall of a run that has ended well. */
export function timeline(run) {
  const { usage, fusion } = run;
  const fall = waterfall(usage, fusion.timings);
  const shown = new Set(fall.rows.flatMap((row) => row.segments.map((each) => each.kind)));
  const legend = Object.entries(KINDS)
    .filter(([kind]) => shown.has(kind))
    .map(([kind, words]) => h("li", {}, h("i", { className: `bar-${kind}` }), words));
  return h(
    "div",
    { className: "timeline" },
    h("p", { className: "number" }, sentence(fusion.timings)),
    h("div", { className: "fall", "aria-hidden": "true" }, ...fall.rows.map((row) => bar(row, fall)), axis(fall)),
    h(
      "ul",
      { className: "legend small muted", "aria-hidden": "true" },
      ...legend,
      h("li", {}, h("i", { className: "floor-key" }), "floor: the slowest member, then the judge's writing"),
    ),
    h("details", { className: "as-table" }, h("summary", { className: "small muted" }, "As a table"), table(fall)),
  );
}

function sentence(timings) {
  const { times, aboveMs } = againstFloor(timings);
  const first = seconds(timings.first_token_ms ?? timings.total_ms);
  const early = timings.early_prefill_tokens;
  const read = early
    ? ` Of its prompt the judge read ${early} tokens early, ${timings.late_prefill_tokens} after the panel.`
    : "";
  return (
    `${seconds(timings.total_ms)} in all: ${times.toFixed(2)} times the floor of ${seconds(timings.floor_ms)}` +
    ` (${seconds(aboveMs)} above it). Its first word came after ${first}.${read}`
  );
}

function bar(row, fall) {
  const track = h(
    "div",
    { className: "track" },
    ...row.segments.map((each) =>
      placed(h("i", { className: `bar-${each.kind}` }), each.fromMs / fall.endMs, each.toMs / fall.endMs),
    ),
    placed(h("span", { className: "floor" }), fall.floorMs / fall.endMs),
  );
  return h(
    "div",
    { className: `fall-row ${row.side}` },
    h("span", { className: "fall-name" }, h("b", { className: "name" }, row.name), ` ${row.does}`),
    track,
    h("span", { className: "fall-time number" }, seconds(row.totalMs)),
  );
}

function axis(fall) {
  const marks = fall.ticks.map((ms) => placed(h("span", { className: "tick number" }, seconds(ms)), ms / fall.endMs));
  return h("div", { className: "fall-row axis" }, h("span"), h("div", { className: "track" }, ...marks), h("span"));
}

function placed(element, from, to = from) {
  element.style.setProperty("--from", from);
  element.style.setProperty("--share", to - from);
  return element;
}

function table(fall) {
  const head = ["Who", "Does", "Begins", "Reads", "Writes", "Prompt tokens", "From cache", "Tokens written"];
  const rows = fall.rows.map((row) => [
    row.name,
    row.does,
    seconds(row.startMs),
    seconds(row.readMs),
    seconds(row.wroteMs),
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
