// What votes on compared answers say.

import assert from "node:assert/strict";
import test from "node:test";

import { leaderboard, questionLines } from "../../runtime/cappella/gateway/web/assets/votes.js";

const vote = (verdict, ways = ["panel", "alone"], answers = ["long", "short"]) => ({ question: "Why?", ways, answers, verdict });

test("a way's share counts a tie half, and the best way stands first", () => {
  const rows = leaderboard([vote("second"), vote("second"), vote("both"), vote("first")]);
  assert.deepEqual(rows, [
    ["alone", "4", "2", "1", "1", "63%"],
    ["panel", "4", "1", "1", "2", "38%"],
  ]);
});

test("a vote between a way and itself is not counted, and neither is an unknown verdict", () => {
  assert.deepEqual(leaderboard([vote("first", ["panel", "panel"]), vote("perhaps")]), []);
});

test("each question with a good answer becomes one line that an evaluation reads", () => {
  const lines = questionLines([vote("second"), vote("second"), vote("none")]);
  assert.deepEqual(lines.trimEnd().split("\n").map(JSON.parse), [
    { prompt: "Why?", rubric: "The answer is as good as this one: short" },
  ]);
});
