// A report of an evaluation as elements: the verdict, the ways with their intervals, the seats, the judge, how it was measured.

import { h, scrollable } from "./dom.js";
import { categoryTable, seatRows, turnedRows, WAY_COLUMNS, wayRows } from "./eval_text.js";
import { plainTable } from "./plain_table.js";

const SEATS = ["Member", "Way", "With it", "Without it", "Difference", "Advice"];
const TURNED = ["Way", "Wrong to right", "Right to wrong", "Saved where none was right", "Missed where some were", "Spoilt where all were"];

/** The elements of a report. */
export function evalReport(report) {
  const { titles, rows } = categoryTable(report.lines);
  return [
    verdict(report.verdict),
    part("Ways", ways(report.lines.filter((line) => line.kind !== "part"))),
    report.seats?.length && part("Each member's seat", filled("Each member's seat", SEATS, seatRows(report.seats))),
    report.judge?.turned?.length && part("What the judge did", filled("What the judge did", TURNED, turnedRows(report.judge.turned))),
    titles.length && part("By category", filled("By category", ["Way", ...titles], rows)),
    problems(report.problems ?? {}),
    part("How it was measured", about(report)),
  ].filter(Boolean);
}

function verdict({ advice, sentences }) {
  const tone = advice === "use" ? "good" : "warn";
  const [first, ...others] = sentences;
  const words = [h("p", { className: "eval-first" }, first), ...others.map((each) => h("p", {}, each))];
  return h("section", { className: `eval-verdict ${tone}`, "aria-label": "Verdict" }, h("h2", {}, "Verdict"), ...words);
}

/** Each way with its share of right answers as a bar, and the interval as a line on it. */
function ways(lines) {
  const head = ["Way", "", ...WAY_COLUMNS].map((title) => h("th", { scope: "col" }, title || h("span", { className: "unseen" }, "As a bar")));
  const rows = wayRows(lines).map(({ name, kind, accuracy, cells }) =>
    h(
      "tr",
      { className: `eval-${kind}` },
      h("th", { scope: "row" }, h("span", { className: "name" }, name)),
      h("td", {}, bar(accuracy)),
      cells.map((cell) => h("td", { className: "number" }, cell)),
    ),
  );
  const table = h("table", { className: "eval-table" }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows));
  return scrollable("Ways", table);
}

function bar(accuracy) {
  const track = h("div", { className: "eval-track", "aria-hidden": "true" });
  if (!accuracy) return track;
  const at = (className, from, to) => {
    const element = h("i", { className });
    element.style.setProperty("--from", from);
    element.style.setProperty("--to", to);
    return element;
  };
  track.append(at("eval-share", 0, accuracy.mean), at("eval-interval", accuracy.low, accuracy.high));
  return track;
}

function problems(all) {
  const listed = Object.entries(all).map(([text, count]) => h("li", {}, `${text}: ${count} times`));
  return listed.length && part("Questions without an answer", h("ul", { className: "small" }, listed));
}

function about({ about: facts = {}, command, at, cappella, cores }) {
  const pairs = Object.entries({ command, at, ...facts, version: cappella, cores }).filter(([, value]) => value !== undefined);
  return h("dl", { className: "machine-facts small" }, pairs.map(([title, value]) => h("div", {}, h("dt", {}, title), h("dd", {}, String(value)))));
}

function filled(title, columns, rows) {
  const table = plainTable(title, columns);
  table.show(rows);
  return table.root;
}

function part(title, content) {
  return h("section", { className: "machine-section", "aria-label": title }, h("h2", {}, title), content);
}
