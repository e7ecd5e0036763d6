// What is kept of conversations, and how they are exported.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { titleOf } from "../../runtime/cappella/gateway/web/assets/conversation.js";
import { asJson, asMarkdown } from "../../runtime/cappella/gateway/web/assets/export.js";
import { readKeptRun } from "../../runtime/cappella/gateway/web/assets/kept_run_state.js";
import { newRun } from "../../runtime/cappella/gateway/web/assets/run_state.js";
import { sizeInBody, summaryQuestion, turnsToLeaveOut, withSummary } from "../../runtime/cappella/gateway/web/assets/too_long.js";
import { sha256 } from "../../runtime/cappella/gateway/web/assets/sha256.js";

const CHOICE = { model: "cappella/default", strategy: "vote" };
const HEAD = { id: "1", owner: "o", title: "Rooms", createdMs: 0, changedMs: 1000 };
const ANALYSIS = { consensus: ["a room"], contradictions: [{ topic: "which", stances: [{ model: "A", stance: "7" }] }] };
const RUN = {
  ...newRun(0),
  phase: "done",
  members: { ann: { name: "ann", text: "# Seven" }, bob: { name: "bob", text: "" } },
  labels: { A: "ann" },
  analysis: { text: "", value: ANALYSIS, isWhole: true },
};
const TURN = { question: "Where?", attachments: [{ name: "a.csv" }], choice: CHOICE, leftOut: 0, run: RUN, view: {} };
const CODE = "# Room\n\n````py\n# a comment\n```\n# another\n````\n\n## Floor";

test("a digest is that of SHA-256, whatever the length", () => {
  for (const text of ["", "abc", "ü".repeat(100), ...[55, 56, 63, 64, 119, 1000].map((length) => "x".repeat(length))]) {
    assert.equal(sha256(text), createHash("sha256").update(text).digest("hex"));
  }
});

test("a title is the first words of a question, in one line", () => {
  assert.equal(titleOf("  Where\n is  it? "), "Where is it?");
  assert.equal(titleOf("x".repeat(200)).length, 80);
});

test("Markdown has question, answer, members and comparison; the headings of an answer lie below the file's", () => {
  const text = asMarkdown({ head: HEAD, turns: [{ ...TURN, answer: CODE }] });
  const parts = ["# Rooms\n", "## Question\n\nWhere?\n\n*Attached: a.csv*\n\n*vote*", "### Room\n", "#### Floor"];
  for (const part of parts) assert.ok(text.includes(part), part);
  assert.ok(text.includes("````py\n# a comment\n```\n# another\n````"));
  assert.ok(text.includes("<summary>ann answered</summary>\n\n### Seven"));
  assert.ok(!text.includes("bob"));
  assert.ok(text.includes("**They disagree**\n\n- which (ann: 7)"));
});

test("JSON has the run of each turn, and errors as data", () => {
  const error = Object.assign(new Error("busy"), { status: 429, code: "overloaded", param: null, details: {} });
  const failed = { ...TURN, answer: "", run: { ...RUN, phase: "failed", error } };
  const { title, turns } = JSON.parse(asJson({ head: HEAD, turns: [{ ...TURN, answer: "7" }, failed] }));
  assert.equal(title, "Rooms");
  assert.deepEqual(turns[0].run.analysis.value, ANALYSIS);
  assert.equal(turns[0].view, undefined);
  assert.deepEqual(turns[1].run.error, { message: "busy", status: 429, code: "overloaded", param: null, details: {} });
});

test("a run that the server keeps is read as if it had just ended", () => {
  const fusion = {
    analysis_models: ["ann"],
    failed_models: [{ model: "bob", reason: "engine_broke", error: "e" }],
    judge_model: "cid",
    responses: [{ model: "ann", content: "7" }],
    analysis: ANALYSIS,
    labels: { A: "ann" },
  };
  const usage = { fusion_details: [{ role: "panel", model: "ann", start_ms: 5, first_token_ms: 2, ms: 40, completion_tokens: 3 }] };
  const reply = { id: "r1", status: "ok", total_ms: 90, fusion, usage, error: null };
  const whole = readKeptRun({ ...reply, messages: [{ role: "user", content: "Where?" }], answer: { content: "Seven." } });
  assert.equal(whole.question, "Where?");
  assert.deepEqual([whole.run.phase, whole.run.endedMs, whole.run.answer.text], ["done", 90, "Seven."]);
  const { ann, bob } = whole.run.members;
  assert.deepEqual([ann.state, ann.text, ann.startedMs, ann.firstMs, ann.endedMs, ann.tokens], ["done", "7", 5, 7, 45, 3]);
  assert.deepEqual([bob.state, bob.reason], ["failed", "engine_broke"]);
  const bare = readKeptRun({ ...reply, status: "failed", error: { type: "PanelFailed" } });
  assert.deepEqual([bare.question, bare.run.phase, bare.run.error.message], ["", "failed", "PanelFailed"]);
});

test("the oldest turns are left out until half or one is left, at least one more each time", () => {
  const turn = (length) => ({ question: "x".repeat(length), attachments: [], answer: "" });
  assert.equal(turnsToLeaveOut([10, 10, 10, 10].map(turn), 0), 2);
  assert.equal(turnsToLeaveOut([10, 10, 10, 10].map(turn), 2), 3);
  assert.equal(turnsToLeaveOut([100, 1, 1].map(turn), 0), 1);
  assert.equal(turnsToLeaveOut([1, 100].map(turn), 0), 1);
});

test("where a request is too large for the server, images count", () => {
  const image = { name: "a.png", kind: "image", url: "data:,".padEnd(1000) };
  const turns = [[image], [], []].map((attachments) => ({ question: "Where?", attachments, answer: "There." }));
  assert.equal(turnsToLeaveOut(turns, 0, sizeInBody), 1);
  assert.equal(turnsToLeaveOut(turns, 0), 2);
});

test("a summary is asked of the end of a conversation that the models can read", () => {
  const turns = ["First?", "Last?"].map((question) => ({ question, attachments: [], answer: "a".repeat(90) }));
  assert.ok(summaryQuestion(turns, null).includes("Question: First?"));
  const short = summaryQuestion(turns, 130);
  assert.ok(short.includes("Question: Last?") && !short.includes("First?"));
  assert.match(withSummary("Be brief.", "They met."), /^Be brief\.\n\n.*:\nThey met\.$/);
});

test("Markdown lists the sources that an answer cites, quoted line by line, and JSON has all", () => {
  const source = { handle: "S1", documents: "d", path: "a.md", place: "page 1", text: "# One\ntwo", found_by: ["ann"], cited_by: [] };
  const sources = [{ ...source, cited: true }, { ...source, handle: "S2", path: "b.md", cited: false }];
  const conversation = { head: HEAD, turns: [{ ...TURN, answer: "7 [S1]", run: { ...RUN, fusion: { sources } } }] };
  const text = asMarkdown(conversation);
  assert.ok(text.includes("### Sources\n\n- S1: a.md, page 1\n\n  > # One\n  > two"), text);
  assert.ok(!text.includes("b.md"));
  assert.deepEqual(JSON.parse(asJson(conversation)).turns[0].run.fusion.sources, sources);
});
