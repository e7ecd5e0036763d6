// Markdown as a tree of plain objects: `{tag, children}`, text as strings. HTML stays text.

import { inline } from "./markdown_inline.js";

const MAX_DEPTH = 8;
const MAX_FORMULA_LINES = 60;
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}>/;
const ITEM = /^( {0,3})([-*+]|(\d{1,9})[.)])[ \t]+(?=\S)/;
const TASK = /^\[([ xX])\] +(?=\S)/;
const FOOTNOTE = /^ {0,3}\[\^([^\]\s]{1,50})\]:[ \t]+(.*)$/;
// A displayed formula in lines of its own: from `$$` or `\[` to its end, without an empty line.
const FORMULA = /^ {0,3}(\$\$|\\\[)(.*)$/;
const FORMULA_ENDS = { $$: /^((?:\\[^]|[^$\\]|\$(?!\$))*)\$\$\s*$/, "\\[": /^(.*?)\\\]\s*$/ };
const TABLE_RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

/** The blocks of a text. What is still open at its end, as in a growing answer, counts as closed there. */
export function markdown(text) {
  return markdownBlocks(text).map(({ node }) => node);
}

/**
 * The blocks of a growing text, each with the character at which it starts. `isFinal` says that no text that follows can
 * change the block: another one has begun after it, with a whole line.
 */
export function markdownBlocks(text) {
  const lines = text.split("\n");
  const starts = [];
  let end = 0;
  for (const line of lines) {
    starts.push(end);
    end += line.length + 1;
  }
  const found = blocksOf(lines.map((line) => line.replace(/\r$/, "").replaceAll("\t", "    ")), 0);
  const isBegun = (block) => block !== undefined && block.line < lines.length - 1;
  return found.map(({ node, line }, at) => ({ node, start: starts[line], isFinal: isBegun(found[at + 1]) }));
}

function blocks(lines, depth) {
  return blocksOf(lines, depth).map(({ node }) => node);
}

function blocksOf(lines, depth) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [node, next] = blockAt(lines, at, depth);
    found.push({ node, line: at });
    at = next;
  }
  return found;
}

/** The block that begins at a line, and the line after it. */
function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) {
    const children = inline(heading[2].replace(/\s+#+\s*$/, ""));
    return [{ tag: `h${Math.min(6, heading[1].length + 2)}`, children }, at + 1];
  }
  if (RULE.test(line)) return [{ tag: "hr", children: [] }, at + 1];
  if (depth < MAX_DEPTH && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < MAX_DEPTH && ITEM.test(line)) return listAt(lines, at, depth);
  const footnote = FOOTNOTE.exec(line);
  if (footnote) return footnoteAt(lines, at, footnote);
  const formula = FORMULA.test(line) && formulaAt(lines, at);
  if (formula) return formula;
  if (isTable(lines, at)) return table(lines, at);
  return paragraph(lines, at, depth);
}

function code(lines, at, [, marks, language]) {
  const end = new RegExp(`^ {0,3}${marks[0]}{${marks.length},}\\s*$`);
  let next = at + 1;
  while (next < lines.length && !end.test(lines[next])) next += 1;
  const text = lines
    .slice(at + 1, next)
    .join("\n")
    .replace(/\n$/, "");
  const isOpen = next >= lines.length;
  return [{ tag: "pre", language, isOpen, children: [{ tag: "code", children: [text] }] }, next + 1];
}

/** A displayed formula and the line after it; null where an empty line comes before its end. */
function formulaAt(lines, at) {
  const [, opening, rest] = FORMULA.exec(lines[at]);
  const tex = [];
  for (let next = at; next < lines.length && lines[next].trim(); next += 1) {
    if (tex.length > MAX_FORMULA_LINES) return null;
    const line = next === at ? rest : lines[next];
    const ending = FORMULA_ENDS[opening].exec(line);
    if (ending) return [formulaNode([...tex, ending[1]], false), next + 1];
    if (next === at && line.includes(opening === "$$" ? "$$" : "\\]")) return null;
    tex.push(line);
  }
  const isOpen = at + tex.length === lines.length;
  return isOpen ? [formulaNode(tex, true), lines.length] : null;
}

function formulaNode(lines, isOpen) {
  return { tag: "math", tex: lines.join("\n").trim(), display: true, isOpen, children: [] };
}

/** The text of a footnote, with the lines that continue it. */
function footnoteAt(lines, at, [, name, first]) {
  let next = at + 1;
  while (next < lines.length && lines[next].trim() && !FOOTNOTE.test(lines[next]) && !startsBlock(lines[next])) next += 1;
  const text = [first, ...lines.slice(at + 1, next).map((line) => line.trim())].join("\n");
  return [{ tag: "footnote", name, children: inline(text) }, next];
}

function quote(lines, at, depth) {
  let next = at;
  while (next < lines.length && QUOTE.test(lines[next])) next += 1;
  const inside = lines.slice(at, next).map((line) => line.replace(/^ {0,3}> ?/, ""));
  return [{ tag: "blockquote", children: blocks(inside, depth + 1) }, next];
}

function listAt(lines, at, depth) {
  const [, , marker, number] = ITEM.exec(lines[at]);
  const isSame = (line) => {
    const item = ITEM.exec(line);
    return (
      item && !RULE.test(line) && (item[3] === undefined) === (number === undefined) && item[2].at(-1) === marker.at(-1)
    );
  };
  const children = [];
  let next = at;
  while (next < lines.length && isSame(lines[next])) {
    const [item, after] = itemAt(lines, next, depth);
    children.push(item);
    next = after;
    let ahead = next;
    while (ahead < lines.length && !lines[ahead].trim()) ahead += 1;
    if (ahead < lines.length && isSame(lines[ahead])) next = ahead;
  }
  const list = { tag: number === undefined ? "ul" : "ol", children };
  if (number !== undefined && number !== "1") list.start = Number(number);
  return [list, next];
}

function itemAt(lines, at, depth) {
  const width = ITEM.exec(lines[at])[0].length;
  const task = TASK.exec(lines[at].slice(width));
  const inside = [lines[at].slice(width + (task?.[0].length ?? 0))];
  let next = at + 1;
  for (; next < lines.length; next += 1) {
    const line = lines[next];
    const indent = line.length - line.trimStart().length;
    if (!line.trim()) {
      const after = lines[next + 1] ?? "";
      if (!/^ {2,}\S/.test(after)) break;
      inside.push("");
    } else if (indent >= Math.min(width, 2)) {
      inside.push(line.slice(Math.min(indent, width)));
    } else if (ITEM.test(line) || startsBlock(line) || !inside.at(-1)) {
      break;
    } else {
      inside.push(line);
    }
  }
  const children = blocks(inside, depth + 1);
  const [first] = children;
  const content = first?.tag === "p" ? [...first.children, ...children.slice(1)] : children;
  if (!task) return [{ tag: "li", children: content }, next];
  return [{ tag: "li", isTask: true, children: [{ tag: "check", isDone: task[1] !== " ", children: [] }, ...content] }, next];
}

function isTable(lines, at) {
  return (
    lines[at].includes("|") &&
    TABLE_RULE.test(lines[at + 1] ?? "") &&
    lines[at + 1].includes("-") &&
    cells(lines[at]).length === cells(lines[at + 1]).length
  );
}

function table(lines, at) {
  const aligned = cells(lines[at + 1]).map((cell) => ({ true: "right" })[cell.endsWith(":")] ?? null);
  const row = (line, tag) => ({
    tag: "tr",
    children: cells(line)
      .slice(0, aligned.length)
      .map((cell, i) => ({ tag, align: aligned[i], children: inline(cell) })),
  });
  let next = at + 2;
  while (next < lines.length && lines[next].includes("|") && lines[next].trim()) next += 1;
  const head = { tag: "thead", children: [row(lines[at], "th")] };
  const body = { tag: "tbody", children: lines.slice(at + 2, next).map((line) => row(line, "td")) };
  return [{ tag: "table", children: [head, body] }, next];
}

function cells(line) {
  const inside = line
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "");
  return inside.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function paragraph(lines, at, depth) {
  let next = at + 1;
  const continues = (line) =>
    line.trim() && !startsBlock(line) && !(depth < MAX_DEPTH && ITEM.test(line)) && !isTable(lines, next);
  while (next < lines.length && continues(lines[next])) next += 1;
  return [
    {
      tag: "p",
      children: inline(
        lines
          .slice(at, next)
          .map((line) => line.trimStart())
          .join("\n"),
      ),
    },
    next,
  ];
}

function startsBlock(line) {
  return [FENCE, HEADING, RULE, QUOTE, FOOTNOTE, FORMULA].some((rule) => rule.test(line));
}
