// The time and tokens of a finished run, those of all its calls.

import { h, setText } from "./dom.js";
import { formatSeconds } from "./format.js";

const NO_FIGURE = "–";
const FIGURES = {
  "Total time": ({ timings }) => formatSeconds(timings.total_ms),
  "Time to first token": ({ timings }) => formatSeconds(timings.first_token_ms ?? timings.total_ms),
  Panel: ({ timings }) => (timings.panel_ms === undefined ? NO_FIGURE : formatSeconds(timings.panel_ms)),
  Floor: ({ timings }) => (timings.floor_ms === undefined ? NO_FIGURE : formatSeconds(timings.floor_ms)),
  "Prompt tokens": ({ usage }) => promptText(usage),
  "Completion tokens": ({ usage }) => String(usage?.completion_tokens ?? NO_FIGURE),
};

function promptText(usage) {
  const cached = usage?.prompt_tokens_details?.cached_tokens;
  return `${usage?.prompt_tokens ?? NO_FIGURE}${cached === undefined ? "" : ` (${cached} cached)`}`;
}

/** The figures of a single model, by this page's clock. */
function ofOneModel({ startedMs, endedMs, answer, usage }) {
  const first_token_ms = answer.firstMs === null ? null : answer.firstMs - startedMs;
  return { timings: { total_ms: endedMs - startedMs, first_token_ms }, usage };
}

/** The time and all tokens of a run as a small table, which has its place before there is a figure. */
export function figuresTable() {
  const cells = Object.entries(FIGURES).map(([title, figure]) => ({ title, figure, cell: h("td", {}, NO_FIGURE) }));
  const rows = cells.map(({ title, cell }) => h("tr", {}, h("th", { scope: "row" }, title), cell));
  return {
    element: h("table", { className: "number figures", "aria-label": "Time and tokens" }, h("tbody", {}, ...rows)),
    clear: () => cells.forEach(({ cell }) => setText(cell, NO_FIGURE)),
    show: (run) => cells.forEach(({ figure, cell }) => setText(cell, figure(run.fusion ?? ofOneModel(run)))),
  };
}
