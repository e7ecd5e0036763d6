// Puts each sentence of rendered text into elements of its own.

import { h } from "./dom.js";
import { sentences } from "./attribution.js";

const BLOCKS = "p, li, h3, h4, h5, h6, td, th, blockquote";

/** Put every sentence below `root` into spans; returns `{text, spans}` for each, in order. Code is left alone. */
export function markSentences(root) {
  const blocks = [...root.querySelectorAll(BLOCKS)];
  return blocks.flatMap((block) => markBlock(textsOf(block)));
}

/** The text nodes of a block, without those of blocks inside it. */
function textsOf(block) {
  const walker = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const text = walker.currentNode;
    if (text.parentElement.closest(BLOCKS) === block && !text.parentElement.closest("pre, button")) found.push(text);
  }
  return found;
}

function markBlock(texts) {
  const whole = texts.map((text) => text.data).join("");
  const found = sentences(whole).map(({ start, end }) => ({ text: whole.slice(start, end), start, end, spans: [] }));
  let at = 0;
  for (const text of texts) {
    const from = at;
    at += text.data.length;
    const here = found.filter((each) => each.start < at && each.end > from);
    text.replaceWith(...pieces(text.data, from, here));
  }
  return found;
}

function pieces(data, from, found) {
  const made = [];
  let at = 0;
  for (const sentence of found) {
    const start = Math.max(0, sentence.start - from);
    const end = Math.min(data.length, sentence.end - from);
    if (start > at) made.push(data.slice(at, start));
    const span = h("span", { className: "sentence" }, data.slice(start, end));
    sentence.spans.push(span);
    made.push(span);
    at = end;
  }
  if (at < data.length) made.push(data.slice(at));
  return made;
}
