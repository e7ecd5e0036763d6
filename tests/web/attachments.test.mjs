// What is attached to a question, and how it is sent.
import assert from "node:assert/strict";
import { test } from "node:test";

import { contentOf, isLongPaste, pastedText } from "../../runtime/cappella/gateway/web/assets/attachments.js";

const file = (name, text) => ({ name, kind: "text", text });

test("only a long paste stands beside the question", () => {
  assert.ok(!isLongPaste("x".repeat(2000)));
  assert.ok(isLongPaste("x".repeat(2001)));
});

test("a paste is named by its size, also in a script without spaces", () => {
  assert.equal(pastedText("word ".repeat(2213)).name, "Pasted text, 2,213 words");
  assert.equal(pastedText("澳大利亚的首都是堪培拉。".repeat(100)).name, "Pasted text, 1,200 characters");
});

test("a question alone is its words; attachments stand before it, each in a fence of its own", () => {
  assert.equal(contentOf("Why?"), "Why?");
  const content = contentOf("Why?", [file("a.csv", "x,y"), file("notes", "say ```` or ```")]);
  assert.equal(content, "a.csv:\n\n```csv\nx,y\n```\n\nnotes:\n\n`````\nsay ```` or ```\n`````\n\nWhy?");
  assert.equal(contentOf("", [file("x.constructor", "1")]), "x.constructor:\n\n```\n1\n```");
});

test("a text of very many code marks is quoted, too", () => {
  const ticks = "`a` ".repeat(250_000);
  assert.equal(contentOf("", [file("a.md", ticks)]), `a.md:\n\n\`\`\`markdown\n${ticks}\n\`\`\``);
});

test("images are parts of their own", () => {
  const image = { name: "a.png", kind: "image", url: "data:image/png;base64,AA==" };
  assert.deepEqual(contentOf("What is this?", [image, file("a.txt", "b")]), [
    { type: "image_url", image_url: { url: image.url } },
    { type: "text", text: "a.txt:\n\n```\nb\n```\n\nWhat is this?" },
  ]);
});
