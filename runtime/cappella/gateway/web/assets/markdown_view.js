// Markdown as elements: only the tags of this list, and links only to addresses that `markdown_inline.js` accepts.

import { copyButton } from "./copy.js";
import { fill, h, scrollable } from "./dom.js";
import { markdown } from "./markdown.js";

const TAGS = new Set(
  "p h3 h4 h5 h6 ul ol li blockquote pre code table thead tbody tr th td hr br em strong del a".split(" "),
);

/** Show `text` as Markdown in `element`, unless it is shown already. */
export function showMarkdown(element, text) {
  if (element.proseText === text) return;
  element.proseText = text;
  fill(element, ...markdown(text).map(toElement));
}

function toElement(node) {
  if (typeof node === "string") return document.createTextNode(node);
  if (!TAGS.has(node.tag)) throw new TypeError(`no element is made of ${node.tag}`);
  const children = node.children.map(toElement);
  switch (node.tag) {
    case "a":
      return h("a", { href: node.href, rel: "noopener noreferrer nofollow", target: "_blank" }, ...children);
    case "pre":
      return codeBlock(node, children);
    case "table":
      return scrollable("Table", h("table", {}, ...children));
    case "ol":
      return h("ol", { start: node.start }, ...children);
    case "th":
    case "td":
      return h(node.tag, { className: node.align, scope: node.tag === "th" ? "col" : null }, ...children);
    default:
      return h(node.tag, {}, ...children);
  }
}

function codeBlock(node, children) {
  const text = node.children[0].children[0];
  return h(
    "div",
    { className: "code" },
    h(
      "div",
      { className: "code-head" },
      h("span", {}, node.language || "code"),
      copyButton(() => text, "Copy code"),
    ),
    h("pre", { tabindex: 0, role: "group", "aria-label": "Code" }, ...children),
  );
}
