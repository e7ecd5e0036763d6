// The members of a panel: all beside each other, one at full width, or two side by side with their differences.

import { fill, h } from "./dom.js";
import { memberColumn } from "./member_column.js";
import { pairView } from "./pair_view.js";

// The views. In ONE, a member's name goes with it, so that no name of a model can be taken for a view.
const ALL = "all";
const ONE = "one";
const PAIR = "pair";
const FOLDED = "folded";

/** The members of a run; `update(run, nowMs)` brings them up to date, `columns` finds one by its name. */
export function memberColumns() {
  const views = h("div", { className: "row views", role: "group", "aria-label": "View of the panel", hidden: true });
  const grid = h("div", { className: "members" });
  const pairPlace = h("div", { hidden: true });
  const element = h("div", { className: "panel" }, views, grid, pairPlace);
  const columns = new Map();
  let buttons = [];
  let pair = null;
  let shown = { view: ALL, name: null };
  let isChosen = false;
  const choose = () => {
    isChosen = true;
  };
  // Who reads, by keyboard or by scrolling, has chosen this view.
  element.addEventListener("focusin", choose);
  element.addEventListener("scroll", choose, true);

  const show = (view, name = null) => {
    shown = { view, name };
    grid.dataset.layout = view;
    grid.hidden = view === PAIR;
    pairPlace.hidden = view !== PAIR;
    pair = view === PAIR ? pairView(columns) : null;
    fill(pairPlace, pair?.element);
    for (const [each, column] of columns) column.element.hidden = view === ONE && each !== name;
    for (const each of buttons) each.element.setAttribute("aria-pressed", String(each.view === view && each.name === name));
  };
  /** Show the view that was asked for; asked for again, the answers fold away. */
  const ask = (view, name = null) => {
    choose();
    if (view !== ALL && shown.view === view && shown.name === name) show(FOLDED);
    else show(view, name);
  };
  const build = (run) => {
    columns.clear();
    for (const name of Object.keys(run.members)) columns.set(name, memberColumn(name, () => ask(ONE, name)));
    fill(grid, ...[...columns.values()].map((each) => each.element));
    const button = (words, view, name = null) => ({ view, name, element: viewButton(words, () => ask(view, name)) });
    const several = columns.size > 1 ? [button("Side by side", PAIR)] : [];
    buttons = [button("All", ALL), ...[...columns.keys()].map((name) => button(name, ONE, name)), ...several];
    fill(views, ...buttons.map((each) => each.element));
    views.hidden = false;
    show(ALL);
  };
  /** Two answers are compared while none is being written. */
  const updatePair = (isWriting) => {
    for (const each of buttons) if (each.view === PAIR) each.element.hidden = isWriting;
    if (isWriting && shown.view === PAIR) show(ALL);
    pair?.update();
  };

  return {
    element,
    columns,
    letterOf: (name) => columns.get(name)?.letter() ?? null,
    /** Fold the answers away, unless the reader has chosen a view or reads in this one. */
    fold() {
      if (shown.view !== ALL || isChosen) return;
      if (hasSelection(element)) choose();
      else show(FOLDED);
    },
    /** Show a member at full width, at these marked sentences of it. */
    show(name, spans) {
      choose();
      show(ONE, name);
      for (const each of element.querySelectorAll(".highlighted")) each.classList.remove("highlighted");
      for (const span of spans) span.classList.add("highlighted");
      columns.get(name).text.focus({ preventScroll: true });
      spans[0]?.scrollIntoView({ block: "center" });
    },
    update(run, nowMs) {
      if (run.panel.some((name) => !columns.has(name)) || columns.size !== run.panel.length) build(run);
      const members = Object.values(run.members);
      const spanMs = Math.max(1, ...members.map((member) => (member.endedMs ?? nowMs) - member.startedMs));
      for (const [name, each] of columns) each.update(run.members[name], letterOf(run, name), spanMs, nowMs);
      updatePair(members.some((member) => member.endedMs === null));
    },
  };
}

/** Whether the reader has selected text of an element. */
function hasSelection(element) {
  const selection = document.getSelection();
  return !selection.isCollapsed && selection.containsNode(element, true);
}

function viewButton(words, onclick) {
  return h("button", { type: "button", "aria-pressed": "false", onclick }, h("span", { className: "name" }, words));
}

/** The letter under which the judge read a member's answer. */
function letterOf(run, name) {
  return Object.entries(run.labels).find(([, each]) => each === name)?.[0] ?? null;
}
