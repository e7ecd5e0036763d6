// The words of batches, the rows of their files, and the input that is made of a CSV.

import assert from "node:assert/strict";
import test from "node:test";

import { chatLines, endpointOf, filled, readCsv } from "../../runtime/cappella/gateway/web/assets/batch_input.js";
import { answerOf, errorOf, firstRows, modelIn, questionOf, wholeLines } from "../../runtime/cappella/gateway/web/assets/batch_rows.js";
import {
  countsText,
  isOver,
  leftText,
  phaseText,
  problemText,
  sizeText,
  stateOf,
  waitsForWeights,
} from "../../runtime/cappella/gateway/web/assets/batch_text.js";
import { defaultChoice, rowBody } from "../../runtime/cappella/gateway/web/assets/request.js";

const paused = (words) => ({ status: "in_progress", progress: { phases: [], remaining_s: null, paused: words } });

test("how far a batch is", () => {
  assert.equal(countsText({ total: 10000, completed: 1200, failed: 3 }), "1,203 of 10,000 rows, 3 failed");
  assert.equal(countsText({ total: 1, completed: 0, failed: 0 }), "0 of 1 row");
  assert.equal(phaseText({ done: 12, waiting: 26, running: 2, tokens_per_s: 120.4 }), "12 of 40 calls, 2 running, 120 tokens/s");
  assert.equal(phaseText({ done: 12, waiting: 0, running: 0, tokens_per_s: null }), "12 of 12 calls");
  assert.deepEqual([null, 12, 600, 7200].map(leftText), ["", "about 12 s left", "about 10 min left", "about 2.0 h left"]);
  assert.deepEqual([1, 2048, 3 * 2 ** 20, 2 ** 31].map(sizeText), ["1 byte", "2.0 KiB", "3.0 MiB", "2.0 GiB"]);
});

test("the state of a batch", () => {
  assert.deepEqual(stateOf({ status: "in_progress" }), { words: "in progress", tone: "warn" });
  assert.deepEqual(stateOf(paused("The disk is full.")), { words: "paused", tone: "warn" });
  assert.deepEqual(["completed", "failed", "cancelling"].map((status) => isOver({ status })), [true, true, false]);
  assert.equal(waitsForWeights(paused("batch_1 began with other weights than those that are served now.")), true);
  assert.equal(waitsForWeights(paused("The disk is full.")), false);
  assert.equal(problemText({ line: 3, message: "It is not JSON." }), "Line 3: It is not JSON.");
  assert.equal(problemText({ line: null, message: "The file has no rows." }), "The file has no rows.");
});

test("rows are read whatever their endpoint", () => {
  const said = [{ type: "text", text: "Yes." }];
  assert.equal(questionOf({ messages: [{ role: "system", content: "Be brief." }, { role: "user", content: said }] }), "Yes.");
  assert.equal(questionOf({ input: "Hi" }), "Hi");
  assert.equal(questionOf({ prompt: ["one", "two"] }), "two");
  const replies = [
    { choices: [{ message: { content: "Yes." } }] },
    { choices: [{ text: "Yes." }] },
    { output: [{ type: "reasoning" }, { content: said }] },
    { content: said },
  ];
  for (const reply of replies) assert.equal(answerOf(reply), "Yes.");
  assert.equal(answerOf({ object: "list", data: [{}, {}] }), "2 vectors");
  assert.equal(answerOf({ choices: [{ message: { content: null, tool_calls: [{ function: { name: "find", arguments: "{}" } }] } }] }), "find({})");
  assert.equal(errorOf({ response: null, error: { message: "It was cancelled." } }), "It was cancelled.");
  assert.equal(errorOf({ response: { status_code: 400, body: { error: { message: "Too long." } } }, error: null }), "Too long.");
});

test("the line at which a file was cut is left out, and rows find their ends", () => {
  const text = '{"custom_id": "a", "body": {"input": "one"}}\n{"custom_id": "b", "body": {"input": "two"}}\n{"custom_id": "c"';
  const input = wholeLines({ text, isAll: false });
  assert.deepEqual(input.map((each) => each.custom_id), ["a", "b"]);
  const output = [{ custom_id: "a", response: { body: { choices: [{ text: "1" }] } } }];
  const errors = [{ custom_id: "b", error: { message: "No." } }];
  assert.deepEqual(firstRows(input, output, errors, 5), [
    { id: "a", question: "one", answer: "1", error: null },
    { id: "b", question: "two", answer: null, error: "No." },
  ]);
  assert.deepEqual(firstRows(input, [], [], 1), [{ id: "a", question: "one", answer: null, error: null }]);
});

test("the model is that of the first row, if the beginning has it", () => {
  assert.equal(modelIn('{"body": {"messages": [{"content": "say \\"model\\": \\"x\\""}], "model": "ann"}}\n{"model": "bob"}'), "ann");
  assert.equal(modelIn('{"body": {"messages": [{"content": "a long te'), null);
});

test("a CSV has quotes, line feeds in cells, and other separators", () => {
  const { columns, records } = readCsv('\ufeffid,text\n1,"He said ""no"",\ntwice"\n\n2,\n');
  assert.deepEqual(columns, ["id", "text"]);
  assert.deepEqual(records.map((each) => each.get("text")), ['He said "no",\ntwice', ""]);
  assert.deepEqual(readCsv("a;b\n1,5;2").records.map((each) => [...each.values()]), [["1,5", "2"]]);
  assert.deepEqual(readCsv(`a\n"${"x".repeat(3_000_000)}"`).records[0].get("a").length, 3_000_000);
  assert.throws(() => readCsv("a,b\n1,2\n1"), /Row 2 has 1 cells, and there are 2 columns/);
  assert.throws(() => readCsv('a,b\n1,"2'), /Row 1 has a quote/);
  assert.throws(() => readCsv("a,a\n1,2"), /two columns named "a"/);
  assert.throws(() => readCsv("a,b\n"), /no rows/);
  assert.throws(() => readCsv(""), /name the columns/);
});

test("a template asks each row, as chosen", () => {
  const { records } = readCsv("text\nred\nblue");
  assert.equal(filled("{{{text}}}: {text}", records[0]), "{red}: red");
  assert.throws(() => filled("{txt}", records[0]), /no column \{txt\}: the columns are text/);
  const choice = { ...defaultChoice({ id: "cappella/default" }), judge: "ann" };
  const [first, second] = chatLines(records, "Name {text}.", (question) => rowBody(choice, question)).map((line) => JSON.parse(line));
  assert.deepEqual(first, {
    custom_id: "row-1",
    method: "POST",
    url: "/v1/chat/completions",
    body: { model: "cappella/default", messages: [{ role: "user", content: "Name red." }], fusion: { model: "ann" } },
  });
  assert.equal(second.custom_id, "row-2");
  assert.deepEqual(rowBody(defaultChoice({ id: "ann" }), "Hi"), { model: "ann", messages: [{ role: "user", content: "Hi" }] });
});

test("OpenAI's rows tell their endpoint, and other lines are refused", () => {
  assert.equal(endpointOf('\n{"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {}}\n'), "/v1/embeddings");
  assert.throws(() => endpointOf('{"prompt": "Hi"}'), /no row of OpenAI's batches/);
});
