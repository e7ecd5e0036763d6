// Sections of two answers beside each other, and whether members support an answer.
import assert from "node:assert/strict";
import { test } from "node:test";

import { bestPassages, readAnswer, supportOf } from "../../runtime/cappella/gateway/web/assets/attribution.js";
import { alignSections, sectionsOf } from "../../runtime/cappella/gateway/web/assets/sections.js";

const titles = (rows) => rows.map((row) => row.map((section) => section?.title ?? null));

test("a text is cut at its headings, and not at those in code", () => {
  const text = "Before.\n\n## 1. Backup\n\nText\n\n```sh\n# no heading\n```\n\n### The `end`\n\nMore";
  const found = sectionsOf(text);
  assert.deepEqual(found.map(({ title }) => title), ["", "1. Backup", "The end"]);
  assert.equal(found.map((section) => section.text).join("\n\n"), text);
});

test("sections with similar headings stand together, the others as they come", () => {
  const [left, right] = [["1. Backup", "2. Plan", "3. Switch"], ["Introduction", "1. The switch", "2. After"]].map((all) =>
    sectionsOf(all.map((title) => `## ${title}\n\ntext`).join("\n\n")),
  );
  assert.deepEqual(titles(alignSections(left, right)), [
    ["1. Backup", "Introduction"],
    ["2. Plan", null],
    ["3. Switch", "1. The switch"],
    [null, "2. After"],
  ]);
  assert.deepEqual(alignSections([], []), []);
});

test("a point leads to the passage that is most like it, or to none", () => {
  const answers = [readAnswer({ name: "ann", passages: ["Tea is warm.", "Tunagox costs 28 dollars."] })];
  assert.deepEqual(bestPassages("Tunagox costs 28", answers).map(({ name, at }) => [name, at]), [["ann", [1]]]);
  assert.deepEqual(bestPassages("the weather in Paris", answers), []);
  assert.deepEqual(bestPassages("", answers), []);
});

test("the support of an answer leaves out what is too short to tell", () => {
  const found = ["said", "partly", "none", "short"].map((kind) => ({ kind }));
  assert.deepEqual(supportOf(found), { traceable: 3, supported: 2 });
});
