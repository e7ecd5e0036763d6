// The time and tokens of a finished run, those of all its calls.

import { h, setText } from "./dom.js";
import { formatSeconds } from "./format.js";

const NO_FIGURE = "–";
const FIGURES = {
  "Total time": ({ timings }) => formatSeconds(timings.total_ms),
  "Time to first token": ({ timings }) => formatSeconds(timings.first_token_ms ?? timings.total_ms),
  Panel: ({ timings }) => formatSeconds(timings.panel_ms),
  Floor: ({ timings }) => formatSeconds(timings.floor_ms),
  "Prompt tokens": ({ usage }) => `${usage.prompt_tokens} (${usage.prompt_tokens_details.cached_tokens} cached)`,
  "Completion tokens": ({ usage }) => String(usage.completion_tokens),
};

/** The time and all tokens of a run as a small table, which has its place before there is a figure. */
export function figuresTable() {
  const cells = Object.entries(FIGURES).map(([title, figure]) => ({ title, figure, cell: h("td", {}, NO_FIGURE) }));
  const rows = cells.map(({ title, cell }) => h("tr", {}, h("th", { scope: "row" }, title), cell));
  return {
    element: h("table", { className: "number figures", "aria-label": "Time and tokens" }, h("tbody", {}, ...rows)),
    clear: () => cells.forEach(({ cell }) => setText(cell, NO_FIGURE)),
    show: ({ fusion }) => cells.forEach(({ figure, cell }) => setText(cell, figure(fusion))),
  };
}
