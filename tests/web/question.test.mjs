import assert from "node:assert/strict";
import { test } from "node:test";

import { isLongPaste, pasteLabel, splitPastes } from "../../runtime/cappella/gateway/web/assets/question.js";

const CONTRACT = "The supplier delivers the goods. ".repeat(40).trim();
const shown = (question, pastes) => splitPastes(question, pastes).map(({ text, isPasted }) => [isPasted, text]);

test("a question is split at its pastes, in order", () => {
  const question = `Compare\n\n${CONTRACT} A\n\nwith\n\n${CONTRACT} B\n\nplease.`;
  assert.deepEqual(shown(question, [`${CONTRACT} B`, `${CONTRACT} A`]), [
    [false, "Compare"],
    [true, `${CONTRACT} A`],
    [false, "with"],
    [true, `${CONTRACT} B`],
    [false, "please."],
  ]);
});

test("a paste that was edited afterwards is ordinary text", () => {
  assert.deepEqual(shown(CONTRACT.slice(1), [CONTRACT]), [[false, CONTRACT.slice(1)]]);
  assert.deepEqual(shown("Why?", []), [[false, "Why?"]]);
});

test("only a long paste is folded away, also in a script without spaces", () => {
  assert.ok(isLongPaste(CONTRACT));
  assert.ok(!isLongPaste("A short note."));
  const chinese = "澳大利亚的首都是堪培拉。".repeat(100);
  assert.ok(isLongPaste(chinese));
  assert.equal(pasteLabel(chinese), "Pasted text, 1,200 characters");
  assert.equal(pasteLabel("word ".repeat(2213)), "Pasted text, 2,213 words");
});
