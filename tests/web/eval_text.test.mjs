// The figures of a report as text, from the report of the demo.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import {
  categoryTable,
  pointsText,
  readReport,
  seatRows,
  turnedRows,
  WAY_COLUMNS,
  wayRows,
} from "../../runtime/cappella/gateway/web/assets/eval_text.js";

const text = readFileSync(new URL("../../scripts/bench_results/eval-demo.json", import.meta.url), "utf8");
const report = readReport(text);

test("every way has a cell in each column", () => {
  for (const row of wayRows(report.lines)) assert.equal(row.cells.length, WAY_COLUMNS.length, row.name);
  const synthesize = wayRows(report.lines).find((row) => row.name === "synthesize");
  assert.equal(synthesize.cells[0], "83.7% (79–88)");
  assert.equal(synthesize.cells[2], "+61 (+55 to +66), 182 won, 0 lost");
});

test("seats, the judge's turns and categories are told", () => {
  assert.deepEqual(seatRows(report.seats)[0].slice(1), ["majority", "13.0%", "25.0%", "−12 (−17 to −7), 17 won, 53 lost", "drop"]);
  assert.equal(turnedRows(report.judge.turned)[0][1], "182");
  assert.deepEqual(categoryTable(report.lines).titles, ["1", "2", "3"]);
  assert.equal(pointsText(null), "–");
});

test("a file that is no report is refused with what to open", () => {
  assert.throws(() => readReport("<html>"), /not JSON/);
  assert.throws(() => readReport('{"lines": []}'), /no report of cappella eval/);
  assert.throws(() => readReport("null"), /no report of cappella eval/);
});
