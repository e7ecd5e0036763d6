// The figures of an evaluation as text. Pure functions, without a document.

import { formatSeconds } from "./format.js";

const NONE = "–";

/** The report in a text. Throws an Error that says what to open instead. */
export function readReport(text) {
  let report;
  try {
    report = JSON.parse(text);
  } catch {
    throw new Error("This is not JSON. Open the file that cappella eval wrote with --json.");
  }
  if (!Array.isArray(report?.lines) || !Array.isArray(report.verdict?.sentences)) {
    throw new Error("This is JSON, but no report of cappella eval. Open the file that it wrote with --json.");
  }
  return report;
}

export function percent(share) {
  return typeof share === "number" ? `${(100 * share).toFixed(1)}%` : NONE;
}

/** A difference in points with its interval. */
export function pointsText(difference) {
  if (!difference) return NONE;
  const signed = (share) => `${share < 0 ? "−" : "+"}${Math.abs(100 * share).toFixed(0)}`;
  const { mean, low, high } = difference.difference;
  return `${signed(mean)} (${signed(low)} to ${signed(high)}), ${difference.wins} won, ${difference.losses} lost`;
}

/** The rows of the ways: `{name, kind, accuracy, cells}`, the interval as shares. */
export function wayRows(lines) {
  return lines.map((line) => ({
    name: line.name,
    kind: line.kind,
    accuracy: line.accuracy,
    cells: [
      `${percent(line.accuracy?.mean)} (${Math.round(100 * line.accuracy?.low)}–${Math.round(100 * line.accuracy?.high)})`,
      String(line.n),
      pointsText(line.against_best),
      count(line.tokens),
      count(line.tokens_per_right),
      typeof line.seconds === "number" ? formatSeconds(1000 * line.seconds) : NONE,
      part(line.contested),
      part(line.uncontested),
    ],
  }));
}

export const WAY_COLUMNS = [
  "Right",
  "Questions",
  "Against the best member",
  "Tokens a question",
  "Tokens a right answer",
  "Time",
  "Contested",
  "Uncontested",
];

/** One row for each member and way: with and without it. */
export function seatRows(seats = []) {
  return seats.map((seat) => [
    [seat.member],
    seat.way,
    percent(seat.difference?.ours),
    percent(seat.without),
    pointsText(seat.difference),
    seat.advice,
  ]);
}

/** What the judge made of the panel's answers, by way. */
export function turnedRows(turned = []) {
  return turned.map((each) => [
    each.way,
    String(each.wrong_to_right),
    String(each.right_to_wrong),
    `${each.none_right_saved} of ${each.none_right}`,
    `${each.some_right_missed} of ${each.some_right}`,
    `${each.all_right_spoilt} of ${each.all_right}`,
  ]);
}

/** The accuracy of each way in each category: titles and rows; no titles if there is one category at most. */
export function categoryTable(lines) {
  const titles = [...new Set(lines.flatMap((line) => Object.keys(line.categories ?? {})))].sort();
  if (titles.length < 2) return { titles: [], rows: [] };
  const cell = (line, title) => percent(line.categories?.[title]?.accuracy);
  const rows = lines
    .filter((line) => line.kind !== "part")
    .map((line) => [line.name, ...titles.map((title) => cell(line, title))]);
  return { titles, rows };
}

function count(value) {
  return typeof value === "number" && Number.isFinite(value) ? Math.round(value).toLocaleString("en") : NONE;
}

function part(figures) {
  return figures?.n ? `${percent(figures.accuracy)} of ${figures.n}` : NONE;
}
