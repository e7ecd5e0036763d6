// Puts each sentence of rendered text into elements of its own.

import { h } from "./dom.js";
import { sentences } from "./attribution.js";
import { keepingSelection } from "./selection.js";

const BLOCKS = "p, li, h3, h4, h5, h6, td, th, blockquote, .footnote";
/** Where sentences are; headings and the cells of tables have none. */
export const PROSE = "p, li, blockquote";
/** Where the words are that a sentence may come from. */
export const ANYWHERE = BLOCKS;

/** Put every sentence of such blocks below `root` into spans; returns `{text, spans}` for each, in order. Code is left alone. */
export function markSentences(root, blocks) {
  const found = [...root.querySelectorAll(blocks)].filter((block) => blocks === ANYWHERE || !block.closest("td, th"));
  let marked = [];
  keepingSelection(root, () => {
    marked = found.flatMap((block) => markBlock(textsOf(block)));
  });
  return marked;
}

/** The text nodes of a block, without those of blocks inside it; a formula counts as its TeX. */
function textsOf(block) {
  const walker = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
  const found = new Set();
  while (walker.nextNode()) {
    const { parentElement } = walker.currentNode;
    if (parentElement.closest(BLOCKS) !== block || parentElement.closest("pre, button, sup")) continue;
    found.add(parentElement.closest(".math") ?? walker.currentNode);
  }
  return [...found].map((node) => ({ node, data: node.data ?? node.dataset.tex }));
}

function markBlock(texts) {
  const whole = texts.map((text) => text.data).join("");
  const found = sentences(whole).map(({ start, end }) => ({ text: whole.slice(start, end), start, end, spans: [] }));
  let at = 0;
  for (const text of texts) {
    const from = at;
    at += text.data.length;
    // Code and formulas count, and look as they did.
    if (text.node.nodeType !== Node.TEXT_NODE || text.node.parentElement.closest("code")) continue;
    const here = found.filter((each) => each.start < at && each.end > from);
    text.node.replaceWith(...pieces(text.data, from, here));
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
