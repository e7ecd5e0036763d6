// JSON half written, texts compared, streams cut anywhere, requests and errors in words.
import assert from "node:assert/strict";
import test from "node:test";

import { readAnalysis } from "../../runtime/cappella/gateway/web/assets/analysis_view.js";
import { similarity, wordDiff } from "../../runtime/cappella/gateway/web/assets/diff.js";
import { describeError } from "../../runtime/cappella/gateway/web/assets/errors.js";
import { formatSeconds, formatTokens, joinNames } from "../../runtime/cappella/gateway/web/assets/format.js";
import { parsePartial } from "../../runtime/cappella/gateway/web/assets/partial_json.js";
import { requestBody, readModels, describeChoice, defaultChoice } from "../../runtime/cappella/gateway/web/assets/request.js";
import { memberReasonText, outcomeText, progressText } from "../../runtime/cappella/gateway/web/assets/run_text.js";
import { eventParser } from "../../runtime/cappella/gateway/web/assets/sse.js";

const ANALYSIS = {
  consensus: ['Both say "yes" \\ 12 é', "b"],
  contradictions: [
    {
      topic: "price",
      stances: [
        { model: "A", stance: "28" },
        { model: "B", stance: "35" },
      ],
    },
  ],
  partial_coverage: [{ models: ["A"], point: "p" }],
  unique_insights: [],
  blind_spots: ["x", "y"],
  n: -1.5,
  t: true,
  z: null,
};

test("JSON can be read at every moment while it is written, and loses nothing at its end", () => {
  const text = JSON.stringify(ANALYSIS, null, 1);
  for (let end = 0; end <= text.length; end += 1)
    assert.doesNotThrow(() => parsePartial(text.slice(0, end)), text.slice(0, end));
  assert.deepEqual(parsePartial(text), ANALYSIS);
});

test("what is open is taken as far as it came, what has no value yet is left out", () => {
  assert.deepEqual(parsePartial('{"a": ["one", "tw'), { a: ["one", "tw"] });
  assert.deepEqual(parsePartial('{"a": 1, "b"'), { a: 1 });
  assert.deepEqual(parsePartial('{"a": 1, "b": tr'), { a: 1 });
  assert.deepEqual(parsePartial('{"a": "x\\u00e'), { a: "x" });
  assert.equal(parsePartial(""), undefined);
});

test("an analysis that is half there shows whole points, under members' names", () => {
  const text =
    '{"consensus": ["same"], "contradictions": [{"topic": "price", "stances": ' +
    '[{"model": "A", "stance": "28"}, {"model": "B", "sta';
  const { consensus, contradictions, gaps } = readAnalysis({ text, value: null }, { A: "ann", B: "bob" });
  assert.deepEqual([consensus, gaps], [["same"], []]);
  assert.deepEqual(contradictions, [
    {
      topic: "price",
      stances: [
        { model: "ann", stance: "28" },
        { model: "bob", stance: "" },
      ],
    },
  ]);
});

test("two texts are told apart by words", () => {
  const runs = wordDiff("The price is 28 dollars today.", "The price is now 35 dollars today.");
  assert.deepEqual(
    runs.map(({ kind, text }) => [kind, text.trim()]),
    [
      ["same", "The price is"],
      ["left", "28"],
      ["right", "now 35"],
      ["same", "dollars today."],
    ],
  );
  const of = (kind) =>
    runs
      .filter((run) => run.kind === "same" || run.kind === kind)
      .map((run) => run.text)
      .join("");
  assert.equal(of("right"), "The price is now 35 dollars today.");
});

test("equal texts are all alike, strangers not at all", () => {
  assert.equal(similarity(wordDiff("a b c", "a b c")), 1);
  assert.equal(similarity(wordDiff("", "")), 1);
  assert.equal(similarity(wordDiff("a b", "c d")), 0);
  assert.equal(similarity(wordDiff("a b c x", "x a b c")), 0.75);
  assert.equal(similarity(wordDiff("x ".repeat(5000), "y ".repeat(5000))), 0);
});

test("a stream may be cut anywhere", () => {
  const text = ': keep-alive\n\ndata: {"a":1}\n\ndata: {"b":"ü"}\r\n\r\ndata: [DONE]\n\n';
  for (let cut = 0; cut <= text.length; cut += 1) {
    const parse = eventParser();
    assert.deepEqual([...parse(text.slice(0, cut)), ...parse(text.slice(cut))], [{ a: 1 }, { b: "ü" }]);
  }
});

const MODELS = {
  data: [
    { id: "cappella/default", panel: ["ann", "ann#2"], judge: "cid", presets: ["quick"], examples: ["Why?"] },
    { id: "ann" },
    { id: "cid" },
    { id: "emb", task: "embed" },
  ],
};

test("models that write nothing are not offered", () => {
  assert.deepEqual(readModels(MODELS).models, ["ann", "cid"]);
});

test("a request says only what was chosen", () => {
  const [ensemble] = readModels(MODELS).ensembles;
  const choice = defaultChoice(ensemble);
  const asked = { include_events: true, include_intermediate_responses: true };
  assert.deepEqual(requestBody(choice, [], "Hi"), {
    model: "cappella/default",
    messages: [{ role: "user", content: "Hi" }],
    fusion: asked,
  });
  const chosen = { ...choice, preset: "quick", strategy: "vote", analysis: "off", judge: "ann", panel: ["ann", "cid"] };
  assert.deepEqual(requestBody(chosen, [], "Hi").fusion, {
    ...asked,
    preset: "quick",
    strategy: "vote",
    analysis: "off",
    model: "ann",
    analysis_models: ["ann", "cid"],
  });
  assert.equal(describeChoice(choice), "");
  assert.equal(describeChoice(chosen), "preset quick · vote · analysis off · panel ann, cid · judge ann");
});

test("earlier turns go along, those without an answer do not", () => {
  const turns = [
    { question: "One?", answer: "1" },
    { question: "Two?", answer: "" },
  ];
  const { messages } = requestBody(defaultChoice(readModels(MODELS).ensembles[0]), turns, "Three?");
  assert.deepEqual(
    messages.map((each) => `${each.role}: ${each.content}`),
    ["user: One?", "assistant: 1", "user: Three?"],
  );
});

test("each trouble has its way on", () => {
  const remedy = (fields) => describeError({ message: "m", ...fields }).remedy;
  assert.equal(remedy({ status: 401, code: "invalid_api_key" }), "key");
  assert.equal(remedy({ status: 429, code: "overloaded", retryAfterS: 4 }), "wait");
  assert.equal(describeError({ status: 429, code: "rate_limit_exceeded", message: "m", retryAfterS: 4 }).waitS, 4);
  assert.equal(remedy({ status: 503, code: "model_not_ready" }), "loading");
  assert.equal(remedy({ status: 400, code: "unknown_field" }), "change");
  assert.equal(remedy({ status: 502, code: "insufficient_quorum" }), "retry");
  assert.equal(remedy({}), "retry");
  assert.equal(describeError({ status: 400, code: "x", message: "The server's words." }).words, "The server's words.");
});

test("an error says how to fix it", () => {
  const hint = (details) => describeError({ status: 400, message: "m", details }).hint;
  assert.equal(hint({ hint: "Add a message." }), "Add a message.");
  assert.equal(hint({}), null);
});

test("what a status means is said in words", () => {
  const fusion = {
    status: "degraded",
    failed_models: [
      { model: "bob", reason: "engine_broke" },
      { model: "eve", reason: "straggler" },
    ],
  };
  assert.match(outcomeText(fusion), /^Degraded: bob gave no answer/);
  assert.match(
    outcomeText({ ...fusion, failure_reason: "engine_broke", chosen: "ann" }),
    /judge failed \(engine broke\).*that of ann/,
  );
  assert.match(outcomeText({ status: "single", failed_models: [] }), /Only one member/);
  assert.equal(outcomeText({ status: "ok", failed_models: [] }), null);
  const late = [{ model: "eve", reason: "straggler", cut: "grace", grace_ms: 5000 }];
  assert.match(outcomeText({ status: "ok", failed_models: late }), /^Answered without eve: .* within 5\.0 s/);
  assert.match(memberReasonText("straggler"), /cancelled/);
  assert.equal(memberReasonText("a_new_word"), "a_new_word");
});

test("who wakes, and without whom it is answered soon, is said while a run lasts", () => {
  const member = (state) => ({ state, endedMs: state === "done" ? 1 : null });
  const run = { phase: "panel", round: 1, startedMs: 0, panel: ["ann", "bob"], judge: "cid", waits: {}, endedMs: null };
  const grace = { names: ["bob"], endsMs: 9000 };
  const late = { ...run, grace, members: { ann: member("done"), bob: member("writing") } };
  assert.equal(progressText(late, 4000), "waiting for bob, 4.0 s, answer without it in 5.0 s");
  const wakes = { ...late, members: { ann: member("done"), bob: member("waking") } };
  assert.equal(progressText(wakes, 4000), "waiting for bob, 4.0 s");
  const judged = { ...run, members: { ann: member("done"), bob: member("done") }, waits: { cid: "asleep" } };
  assert.equal(progressText(judged, 4000), "cid was asleep, and wakes, 4.0 s");
  const unjudged = { ...judged, judge: null };
  assert.equal(progressText(unjudged, 4000), "The answers are compared, 4.0 s");
  assert.equal(progressText({ ...unjudged, phase: "judge" }, 4000), "The chosen member writes, 4.0 s");
});

test("times and names read well", () => {
  assert.deepEqual([0, 40, 994, 1234, 9949, 12_400].map(formatSeconds), [
    "0 s",
    "0.04 s",
    "0.99 s",
    "1.2 s",
    "9.9 s",
    "12 s",
  ]);
  assert.deepEqual([["a"], ["a", "b"], ["a", "b", "c"]].map(joinNames), ["a", "a and b", "a, b and c"]);
});

test("one token is one, and thousands have a comma", () => {
  assert.deepEqual([0, 1, 2, 1234].map(formatTokens), ["0 tokens", "1 token", "2 tokens", "1,234 tokens"]);
});
