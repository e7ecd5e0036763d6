// Blocks of code: a copy button, and colours by highlight.js, whose core and grammars are fetched when they are needed.

import { copyButton } from "./copy.js";
import { fill, h } from "./dom.js";
import { later } from "./later.js";
import { keepingSelection } from "./selection.js";

const FOLDER = "/assets/vendor/highlight";
const MAX_CHARACTERS = 30_000;
const LANGUAGES = new Set(
  (
    "bash c cpp csharp css diff dockerfile go ini java javascript json kotlin latex makefile markdown php powershell" +
    " python r ruby rust shell sql swift typescript xml yaml"
  ).split(" "),
);
const OTHER_NAMES = {
  "c#": "csharp", "c++": "cpp", cc: "cpp", console: "shell", cs: "csharp", docker: "dockerfile", golang: "go",
  h: "c", hpp: "cpp", htm: "xml", html: "xml", js: "javascript", jsonc: "json", jsx: "javascript", kt: "kotlin",
  make: "makefile", md: "markdown", patch: "diff", postgresql: "sql", ps1: "powershell", py: "python", rb: "ruby",
  rs: "rust", sh: "bash", svg: "xml", tex: "latex", toml: "ini", ts: "typescript", tsx: "typescript", yml: "yaml",
  zsh: "bash",
};
/** Languages inside a language. */
const INSIDE = { xml: ["css", "javascript"] };

const grammars = new Map();
let loading = null;

/** The element of a block of code, without colours as yet. */
export function codeBlock(language, children) {
  const pre = h("pre", { tabindex: 0, role: "group", "aria-label": "Code" }, ...children);
  return h(
    "div",
    { className: "code" },
    h("div", { className: "code-head" }, h("span", {}, language || "code"), copyButton(() => pre.textContent, "Copy code")),
    pre,
  );
}

/** Colour a block that is complete, once and soon; one in a language that is not known stays as it is. */
export async function colour(block, language) {
  const name = OTHER_NAMES[language?.toLowerCase()] ?? language?.toLowerCase();
  const code = block.querySelector("code");
  if (block.dataset.coloured || !LANGUAGES.has(name) || code.textContent.length > MAX_CHARACTERS) return;
  block.dataset.coloured = name;
  const core = await grammar(name);
  later(() => {
    if (!block.isConnected) return;
    const { rootNode } = core.highlight(code.textContent, { language: name, ignoreIllegals: true })._emitter;
    keepingSelection(code, () => fill(code, ...rootNode.children.map(toNode)));
  });
}

async function grammar(name) {
  const core = await (loading ??= import(`${FOLDER}/core.min.js`)).then((module) => module.default);
  for (const each of [name, ...(INSIDE[name] ?? [])]) {
    if (!grammars.has(each)) grammars.set(each, import(`${FOLDER}/languages/${each}.min.js`));
    core.registerLanguage(each, (await grammars.get(each)).default);
  }
  return core;
}

/** A node of highlight.js's tree as a node of the document: no markup is made of text. */
function toNode(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const children = node.children.map(toNode);
  return node.scope ? h("span", { className: `hl-${node.scope.split(".")[0]}` }, ...children) : h("span", {}, ...children);
}
