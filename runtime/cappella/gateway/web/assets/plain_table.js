// A table of cells, each a text or a list of names, that is drawn again only when one of them changed.

import { fill, h, names, scrollable } from "./dom.js";

/** The table: `root` to show, `show(rows)` with a cell for each title. `none` is said where there are no rows. */
export function plainTable(caption, titles, none = "None yet.") {
  const rows = h("tbody", { role: "rowgroup" });
  const head = h("tr", { role: "row" }, titles.map((title) => h("th", { scope: "col", role: "columnheader" }, title)));
  const parts = [h("caption", { className: "unseen" }, caption), h("thead", { role: "rowgroup" }, head), rows];
  const table = h("table", { className: "machine-table", role: "table" }, parts);
  let shown = "";
  return { root: scrollable(caption, table), show };

  function show(cells) {
    const wanted = JSON.stringify(cells);
    if (wanted === shown) return;
    shown = wanted;
    fill(rows, cells.map((row) => h("tr", { role: "row" }, row.map(cell))));
    const only = h("td", { role: "cell", colspan: titles.length, className: "muted" }, none);
    if (!cells.length) fill(rows, h("tr", { role: "row" }, only));
  }

  function cell(value, at) {
    const words = Array.isArray(value) ? h("span", {}, names(value)) : value;
    if (at === 0) return h("th", { scope: "row", role: "rowheader" }, words);
    return h("td", { role: "cell", "data-label": titles[at] }, words);
  }
}
