// Inline Markdown: emphasis, code, links. Every span has a maximum length, so that no text is slow to read.

const MAX_DEPTH = 6;
const ADDRESS = String.raw`https?://[^\s()<>]{1,2000}(?:\([^\s()<>]{0,500}\)[^\s()<>]{0,500}){0,4}`;
const LINK = new RegExp(String.raw`!?\[([^\][\n]{1,500})\]\((${ADDRESS})(?: +"[^"\n]{0,300}")?\)`, "y");
// Sticky patterns, tried in order. Links lead only to http and https.
const RULES = [
  // Formulas come first: in them a backslash is no escape. A price is none: "$5 and $10", "$5-$10".
  [/\\\(([^]{1,2000}?)\\\)/y, (found) => formula(found[1], false)],
  [/\\\[([^]{1,4000}?)\\\]/y, (found) => formula(found[1], true)],
  [/\$\$([^$]{1,4000})\$\$/y, (found) => formula(found[1], true)],
  [
    /(?<![\p{L}\p{N}\\$])\$(?![\s$])((?:\\[^\n]|[^$\\\n]){1,500})(?<!\s)\$(?![\p{L}\p{N}$])/uy,
    (found) => formula(found[1], false),
  ],
  [/\\([!-/:-@[-`{-~])/y, (found) => found[1]],
  [/&(?:amp|lt|gt|quot|nbsp|#39|#x27);/y, (found) => ENTITIES[found[0]]],
  [/(?: {2,}|\\)?\n/y, () => ({ tag: "br", children: [] })],
  [/<br *\/?>/iy, () => ({ tag: "br", children: [] })],
  [/\[\^([^\]\s]{1,50})\]/y, (found) => ({ tag: "noteref", name: found[1], children: [] })],
  [/(`+)(?!`)([^]{1,2000}?)(?<!`)\1(?!`)/y, (found) => ({ tag: "code", children: [codeText(found[2])] })],
  [LINK, (found, depth) => link(found[2], inlineAt(found[1], depth))],
  [/<(https?:\/\/[^\s<>]{1,2000})>/y, (found) => link(found[1], [found[1]])],
  [
    /\*\*\*(?=[^\s*])([^*]{1,2000}?)(?<=[^\s])\*\*\*(?!\*)/y,
    (found, depth) => ({ tag: "strong", children: [marked("em", found[1], depth)] }),
  ],
  [/\*\*(?=[^\s*])([^]{1,2000}?)(?<=[^\s])\*\*(?!\*)/y, (found, depth) => marked("strong", found[1], depth)],
  [
    /(?<![\p{L}\p{N}_])__(?=[^\s_])([^]{1,2000}?)(?<=[^\s])__(?![\p{L}\p{N}_])/uy,
    (found, depth) => marked("strong", found[1], depth),
  ],
  [/\*(?=[^\s*])((?:[^*]|\*\*(?!\*)){1,2000}?)(?<=[^\s])\*(?!\*)/y, (found, depth) => marked("em", found[1], depth)],
  [
    /(?<![\p{L}\p{N}_])_(?=[^\s_])([^_]{1,2000}?)(?<=[^\s])_(?![\p{L}\p{N}_])/uy,
    (found, depth) => marked("em", found[1], depth),
  ],
  [/~~(?=\S)([^]{1,2000}?)(?<=\S)~~/y, (found, depth) => marked("del", found[1], depth)],
  [/https?:\/\/[^\s<>"'`]{1,2000}/y, (found) => bareLink(found[0])],
];
// The characters at which a rule can begin; all between them is text.
const SIGNS = /[\\\n`![<*_~h$&]/g;
const ENTITIES = {
  "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&nbsp;": "\u00a0", "&#39;": "'", "&#x27;": "'",
};

/** Text and `{tag, children}` of one paragraph, heading or cell. */
export function inline(text) {
  return inlineAt(text, 0);
}

function inlineAt(text, depth) {
  const found = [];
  let plain = "";
  const add = (...nodes) => {
    if (plain) found.push(plain);
    plain = "";
    found.push(...nodes);
  };
  let at = 0;
  while (at < text.length) {
    const [node, next] = depth < MAX_DEPTH ? spanAt(text, at, depth + 1) : [null, at];
    if (node === null) {
      SIGNS.lastIndex = at + 1;
      const sign = SIGNS.exec(text)?.index ?? text.length;
      plain += text.slice(at, sign);
      at = sign;
    } else {
      if (typeof node === "string") plain += node;
      else if (Array.isArray(node)) add(...node);
      else add(node);
      at = next;
    }
  }
  add();
  return found;
}

function spanAt(text, at, depth) {
  for (const [rule, make] of RULES) {
    rule.lastIndex = at;
    const found = rule.exec(text);
    if (found) return [make(found, depth), at + found[0].length];
  }
  return [null, at];
}

function marked(tag, text, depth) {
  return { tag, children: inlineAt(text, depth) };
}

function formula(tex, display) {
  return { tag: "math", tex: tex.trim(), display, isOpen: false, children: [] };
}

function link(href, children) {
  return { tag: "a", href, children };
}

/** A link without the punctuation of the sentence around it. */
function bareLink(address) {
  const [ending] = /[.,;:!?)\]]*$/.exec(address);
  const href = address.slice(0, address.length - ending.length);
  return [link(href, [href]), ...(ending ? [ending] : [])];
}

function codeText(text) {
  const flat = text.replaceAll("\n", " ");
  return /^ .*[^ ].* $/.test(flat) ? flat.slice(1, -1) : flat;
}
