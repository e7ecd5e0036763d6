// The members of a panel: all beside each other, one at full width, or two side by side with their differences.

import { fill, h } from "./dom.js";
import { memberColumn } from "./member_column.js";
import { pairView } from "./pair_view.js";

const ALL = "all";
const PAIR = "pair";
const FOLDED = "folded";

/** The members of a run; `update(run, nowMs)` brings them up to date, `columns` finds one by its name. */
export function memberColumns() {
  const views = h("div", { className: "row views", role: "group", "aria-label": "View of the members' answers", hidden: true });
  const grid = h("div", { className: "members" });
  const pair = h("div", { hidden: true });
  const element = h("div", { className: "panel" }, views, grid, pair);
  const columns = new Map();
  let layout = ALL;
  let isChosen = false;

  const show = (next) => {
    layout = next;
    grid.dataset.layout = columns.has(layout) ? "one" : layout;
    grid.hidden = layout === PAIR;
    pair.hidden = layout !== PAIR;
    if (layout === PAIR) fill(pair, pairView(columns));
    for (const [name, { element: each }] of columns) each.hidden = columns.has(layout) && name !== layout;
    for (const button of views.children) button.setAttribute("aria-pressed", String(button.dataset.view === layout));
  };
  /** The view that was asked for; asked for again, the answers fold away. */
  const choose = (next) => {
    isChosen = true;
    show(layout === next && next !== ALL ? FOLDED : next);
  };
  const build = (run) => {
    columns.clear();
    for (const name of Object.keys(run.members)) columns.set(name, memberColumn(name, () => choose(name)));
    fill(grid, ...[...columns.values()].map((each) => each.element));
    const several = columns.size > 1 ? [[PAIR, "Side by side"]] : [];
    const all = [[ALL, "All"], ...[...columns.keys()].map((name) => [name, name]), ...several];
    fill(views, ...all.map(([view, words]) => viewButton(view, words, () => choose(view))));
    views.hidden = false;
    show(ALL);
  };

  return {
    element,
    columns,
    letterOf: (name) => columns.get(name)?.letter() ?? null,
    /** Fold the answers away, unless the reader has chosen a view. */
    fold() {
      if (!isChosen && layout === ALL) show(FOLDED);
    },
    /** Show a member at full width, at these marked sentences of it. */
    show(name, spans) {
      isChosen = true;
      show(name);
      for (const each of element.querySelectorAll(".highlighted")) each.classList.remove("highlighted");
      for (const span of spans) span.classList.add("highlighted");
      columns.get(name).text.focus({ preventScroll: true });
      spans[0]?.scrollIntoView({ block: "center" });
    },
    update(run, nowMs) {
      if (run.panel.some((name) => !columns.has(name)) || columns.size !== run.panel.length) build(run);
      const pairButton = views.querySelector(`[data-view=${PAIR}]`);
      if (pairButton) pairButton.hidden = Object.values(run.members).some((member) => member.endedMs === null);
      const lasted = Object.values(run.members).map((member) => (member.endedMs ?? nowMs) - member.startedMs);
      const spanMs = Math.max(1, ...lasted);
      for (const [name, each] of columns) each.update(run.members[name], letterOf(run, name), spanMs, nowMs);
    },
  };
}

function viewButton(view, words, onclick) {
  return h("button", { type: "button", "data-view": view, "aria-pressed": "false", onclick }, h("span", { className: "name" }, words));
}

/** The letter under which the judge read a member's answer. */
function letterOf(run, name) {
  return Object.entries(run.labels).find(([, each]) => each === name)?.[0] ?? null;
}
