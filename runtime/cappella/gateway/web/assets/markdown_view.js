// Markdown as elements: only the tags of this list, and links only to addresses that `markdown_inline.js` accepts.
// A text that grows keeps the elements of its finished blocks, and with them what the reader has selected.

import { codeBlock, colour } from "./code_view.js";
import { h, scrollable, uniqueId } from "./dom.js";
import { markdownBlocks } from "./markdown.js";
import { inline } from "./markdown_inline.js";
import { formula } from "./maths_view.js";

const TAGS = new Set(
  "p h3 h4 h5 h6 ul ol li blockquote pre code table thead tbody tr th td hr br em strong del a".split(" "),
);
// Their elements are made of what they say, not of children.
const WITHOUT_CHILDREN = new Set(["math", "check", "noteref"]);
const TOP = 3;
const NO_HEADING = { first: null, last: TOP - 1 };
const shown = new WeakMap();

/** Show `text` as Markdown in `element`, unless it is shown already. */
export function showMarkdown(element, text) {
  let state = shown.get(element);
  if (state?.text === text) return;
  if (!state || !text.startsWith(state.finished)) {
    state = { text: "", finished: "", open: [], levels: NO_HEADING, notes: state?.notes ?? uniqueId("note") };
    shown.set(element, state);
    element.replaceChildren();
  }
  state.text = text;
  const found = markdownBlocks(text.slice(state.finished.length));
  const [nodes, levels] = withLevels(found.map(({ node }) => node), state.levels);
  patchChildren(element, state.open, nodes, state.notes, element.childNodes.length - state.open.length);
  const open = found.findIndex((block) => !block.isFinal);
  state.open = open < 0 ? [] : nodes.slice(open);
  if (open <= 0) return;
  state.finished = text.slice(0, state.finished.length + found[open].start);
  state.levels = levels[open - 1];
}

/**
 * The nodes with headings of a page's order: the first is below that of the question, and none skips a level, whatever the
 * model wrote. Returned with the levels reached after each node.
 */
function withLevels(nodes, before) {
  let levels = before;
  const reached = [];
  const changed = nodes.map((node) => {
    if (/^h[1-6]$/.test(node.tag)) {
      const written = Number(node.tag[1]);
      const first = levels.first ?? written;
      levels = { first, last: Math.min(6, levels.last + 1, Math.max(TOP, written - first + TOP)) };
      node = { ...node, tag: `h${levels.last}` };
    }
    reached.push(levels);
    return node;
  });
  return [changed, reached];
}

/** The nodes of a text in one line, such as a point of a comparison. */
export function inlineMarkdown(text) {
  return inline(text).map((node) => toNode(node, ""));
}

/** Turn the children of `parent` from number `first` on, which show the old nodes, into those that show the new ones. */
function patchChildren(parent, old, nodes, notes, first = 0) {
  nodes.forEach((node, at) => {
    const there = parent.childNodes[first + at];
    if (at >= old.length) parent.append(toNode(node, notes));
    else if (!patch(there, old[at], node, notes)) there.replaceWith(toNode(node, notes));
  });
  while (parent.childNodes.length > first + nodes.length) parent.lastChild.remove();
}

/** Turn what shows the old node into what shows the new one; false if that needs another element. */
function patch(element, old, node, notes) {
  if (typeof node === "string") {
    if (typeof old !== "string") return false;
    if (node === old) return true;
    if (node.startsWith(old)) element.appendData(node.slice(old.length));
    else element.data = node;
    return true;
  }
  if (!isAlike(old, node) || (element.dataset?.coloured && isChanged(old, node))) return false;
  if (element.dataset?.coloured || WITHOUT_CHILDREN.has(node.tag)) return true;
  patchChildren(contentOf(element, node), old.children, node.children, notes);
  if (node.tag === "pre" && !node.isOpen) colour(element, node.language);
  return true;
}

function isAlike(old, node) {
  const leaveOut = node.tag === "pre" ? ["children", "isOpen"] : ["children"];
  return Object.keys(node).every((name) => leaveOut.includes(name) || node[name] === old[name]);
}

function isChanged(old, node) {
  return JSON.stringify(old.children) !== JSON.stringify(node.children);
}

/** The element that has the children of a node: tables, code and footnotes have a frame around it. */
function contentOf(element, { tag }) {
  if (tag === "footnote") return element.lastElementChild;
  return tag === "pre" || tag === "table" ? element.querySelector(tag) : element;
}

function toNode(node, notes) {
  if (typeof node === "string") return document.createTextNode(node);
  switch (node.tag) {
    case "math":
      return formula(node);
    case "check":
      return h("span", { className: "check", role: "img", "aria-label": node.isDone ? "Done:" : "To do:" }, node.isDone ? "✓" : "");
    case "noteref":
      return h("sup", {}, noteLink(node.name, notes));
  }
  const children = node.children.map((child) => toNode(child, notes));
  if (node.tag === "footnote") return footnote(node.name, children, notes);
  if (!TAGS.has(node.tag)) throw new TypeError(`no element is made of ${node.tag}`);
  return toElement(node, children);
}

function toElement(node, children) {
  switch (node.tag) {
    case "a":
      return h("a", { href: node.href, rel: "noopener noreferrer nofollow", target: "_blank" }, ...children);
    case "pre": {
      const block = codeBlock(node.language, children);
      if (!node.isOpen) queueMicrotask(() => colour(block, node.language));
      return block;
    }
    case "table":
      return scrollable("Table", h("table", {}, ...children));
    case "ol":
      return h("ol", { start: node.start }, ...children);
    case "li":
      return h("li", { className: node.isTask ? "task" : null }, ...children);
    case "th":
    case "td":
      return h(node.tag, { className: node.align, scope: node.tag === "th" ? "col" : null }, ...children);
    default:
      return h(node.tag, {}, ...children);
  }
}

/** A link to a footnote. The address of the page names its view, so the link leaves it alone. */
function noteLink(name, notes) {
  const id = `${notes}-${name}`;
  const link = h("a", { href: `#${id}`, "aria-label": `Footnote ${name}` }, name);
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const note = document.getElementById(id);
    note?.scrollIntoView({ block: "center" });
    note?.focus({ preventScroll: true });
  });
  return link;
}

function footnote(name, children, notes) {
  const mark = h("sup", { className: "note-mark" }, name);
  return h("div", { className: "footnote", id: `${notes}-${name}`, tabindex: -1 }, mark, h("div", {}, ...children));
}
