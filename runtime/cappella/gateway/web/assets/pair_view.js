// Two members side by side: sections under the same heading beside each other, and what only one of them says marked.

import { attributeSentence, readAnswer } from "./attribution.js";
import { fill, h } from "./dom.js";
import { slicer } from "./later.js";
import { showMarkdown } from "./markdown_view.js";
import { alignSections, sectionsOf } from "./sections.js";
import { ANYWHERE, PROSE, markSentences } from "./sentence_spans.js";

const ONLY_HERE = ["none", "partly"];

/**
 * Two members of these columns, and menus to choose others: `{element, update}`; `update()` shows what has been written since.
 */
export function pairView(columns) {
  const names = [...columns.keys()];
  const rows = h("div", { className: "pair-rows", tabindex: 0, role: "group", "aria-label": "Two answers" });
  const note = h("p", { className: "small muted", role: "status" });
  const menus = [0, 1].map((side) => menu(names, side, () => draw()));
  let drawn = [];
  const written = () => menus.map(({ value }) => columns.get(value).written());
  const draw = async () => {
    const chosen = menus.map(({ value }) => value);
    drawn = written();
    const cells = alignSections(...drawn.map(sectionsOf)).map((row) => row.map((section, side) => cell(section, chosen[side])));
    fill(rows, ...cells.flat());
    note.textContent = "";
    const counts = await markDifferences(cells);
    if (rows.contains(cells[0]?.[0] ?? null)) note.textContent = differenceText(chosen, counts);
  };
  draw();
  return {
    element: h("div", { className: "pair" }, h("div", { className: "pair-head" }, ...menus), note, rows),
    update() {
      if (written().some((text, side) => text !== drawn[side])) draw();
    },
  };
}

function menu(names, side, onchange) {
  const options = names.map((name, at) => h("option", { value: name, selected: at === side }, name));
  return h("select", { "aria-label": side === 0 ? "On the left" : "On the right", onchange }, ...options);
}

function cell(section, name) {
  const element = h("div", { className: "prose pair-cell", role: "group", "aria-label": name });
  if (section) showMarkdown(element, section.text);
  return element;
}

/** Mark the sentences of each side that are not in the other in similar words; returns how many each side has. */
async function markDifferences(rows) {
  const pause = slicer();
  const sides = [];
  for (const side of [0, 1]) {
    const cells = rows.map((row) => row[side]);
    const passages = cells.flatMap((each) => markSentences(each, ANYWHERE));
    await pause();
    const said = new Set(cells.flatMap((each) => [...each.querySelectorAll(PROSE)]));
    sides.push({ passages, said, read: readAnswer({ name: side, passages: passages.map((each) => each.text) }) });
    await pause();
  }
  const counts = [0, 0];
  for (const [side, { passages, said }] of sides.entries()) {
    for (const { text, spans } of passages) {
      if (!spans.length || !said.has(spans[0].closest(PROSE)) || spans[0].closest("th, td")) continue;
      await pause();
      if (!ONLY_HERE.includes(attributeSentence(text, [sides[1 - side].read]).kind)) continue;
      counts[side] += 1;
      for (const span of spans) span.classList.add("only");
    }
  }
  return counts;
}

function differenceText([left, right], [onLeft, onRight]) {
  if (onLeft + onRight === 0) return "Each says what the other says, in similar words.";
  return `Marked is what the other does not say in similar words: ${onLeft} sentences of ${left}, ${onRight} of ${right}.`;
}
