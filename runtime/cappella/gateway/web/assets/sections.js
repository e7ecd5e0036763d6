// The sections of two texts, aligned by their headings. Pure functions, without a document.

import { markdownBlocks } from "./markdown.js";

const HEADING = /^h[3-6]$/;
const MIN_ALIKE = 0.5;

/** The sections of a Markdown text, `{title, text}`: what stands before the first heading has an empty title. */
export function sectionsOf(text) {
  const headings = markdownBlocks(text).filter(({ node }) => HEADING.test(node.tag));
  const cuts = [{ title: "", start: 0 }, ...headings.map(({ node, start }) => ({ title: plainText(node), start }))];
  return cuts
    .map(({ title, start }, at) => ({ title, text: text.slice(start, cuts[at + 1]?.start).trim() }))
    .filter((section) => section.text);
}

/** Pairs of sections in order, `[left, right]`: those with similar headings together, the others between them as they come. */
export function alignSections(left, right) {
  const length = Array.from({ length: left.length + 1 }, () => new Array(right.length + 1).fill(0));
  for (let i = left.length - 1; i >= 0; i -= 1) {
    for (let j = right.length - 1; j >= 0; j -= 1) {
      const together = isAlike(left[i], right[j]) ? length[i + 1][j + 1] + 1 : 0;
      length[i][j] = Math.max(together, length[i + 1][j], length[i][j + 1]);
    }
  }
  const rows = [];
  let [i, j, gap] = [0, 0, [[], []]];
  const closeGap = () => {
    for (let at = 0; at < Math.max(...gap.map((each) => each.length)); at += 1) rows.push(gap.map((each) => each[at] ?? null));
    gap = [[], []];
  };
  while (i < left.length || j < right.length) {
    const isPair = i < left.length && j < right.length && isAlike(left[i], right[j]);
    if (isPair && length[i][j] === length[i + 1][j + 1] + 1) {
      closeGap();
      rows.push([left[i++], right[j++]]);
    } else if (j >= right.length || (i < left.length && length[i + 1][j] >= length[i][j + 1])) gap[0].push(left[i++]);
    else gap[1].push(right[j++]);
  }
  closeGap();
  return rows;
}

function isAlike(a, b) {
  const [one, other] = [a, b].map(({ title }) => new Set(title.toLowerCase().match(/\p{L}+/gu) ?? []));
  if (one.size === 0 || other.size === 0) return one.size === other.size;
  const both = [...one].filter((word) => other.has(word)).length;
  return both / (one.size + other.size - both) >= MIN_ALIKE;
}

function plainText(node) {
  return typeof node === "string" ? node : node.children.map(plainText).join("");
}
