// Formulas by KaTeX, which is fetched with the first one. Without it, and for TeX that it does not know or that is long,
// the source is shown.

import { h } from "./dom.js";
import { later } from "./later.js";

const FOLDER = "/assets/vendor/katex";
const OPTIONS = { throwOnError: true, strict: "ignore", trust: false, maxSize: 20, maxExpand: 500 };
const MAX_TEX = 4000;

let loading = null;

/** The element of a formula; one that is still written shows its source. */
export function formula({ tex, display, isOpen }) {
  // A displayed formula may be wider than its place, and is then scrolled, also by keyboard.
  const frame = display ? { tabindex: 0, role: "group", "aria-label": "Formula" } : {};
  const className = display ? "math displayed" : "math";
  const element = h("span", { className, "data-tex": tex, ...frame }, h("code", {}, tex));
  if (!isOpen && tex.length <= MAX_TEX) typeset(element, tex, display);
  return element;
}

async function typeset(element, tex, displayMode) {
  const katex = await (loading ??= load());
  later(() => {
    // A formula that was replaced meanwhile, as its line is still written, needs no setting.
    if (!element.isConnected) return;
    try {
      element.replaceChildren(toElement(katex.__renderToDomTree(tex, { ...OPTIONS, displayMode })));
    } catch (error) {
      if (!(error instanceof katex.ParseError)) throw error;
      element.title = error.message;
    }
  });
}

async function load() {
  document.head.append(h("link", { rel: "stylesheet", href: `${FOLDER}/katex.min.css` }));
  await import(`${FOLDER}/katex.min.js`);
  return globalThis.katex;
}

/** The elements of KaTeX's tree. Style attributes, which the page's policy forbids, become properties. */
function toElement(tree) {
  hideStyles(tree);
  const element = tree.toNode();
  for (const each of element.querySelectorAll("[data-style]")) {
    each.style.cssText = each.dataset.style;
    delete each.dataset.style;
  }
  return element;
}

function hideStyles(node) {
  if (node.attributes?.style) {
    node.attributes["data-style"] = node.attributes.style;
    delete node.attributes.style;
  }
  node.children?.forEach(hideStyles);
}
