// Files and long pasted texts that go with a question: `{name, kind, text}` or, for an image, `{name, kind, url}`.

const MIN_PASTED_CHARACTERS = 2000;
const MAX_CHARACTERS_PER_WORD = 20;
const CHARACTERS_PER_TOKEN = 4;
// As the server reckons: no tokenizer counts them, and models differ.
const IMAGE_TOKENS = 1000;
const PASTED = "Pasted text";
const LANGUAGES = {
  bash: "bash", c: "c", cc: "cpp", cpp: "cpp", cs: "csharp", css: "css", csv: "csv", diff: "diff", go: "go", h: "c", hpp: "cpp",
  html: "xml", ini: "ini", java: "java", js: "javascript", json: "json", kt: "kotlin", md: "markdown", mjs: "javascript",
  php: "php", ps1: "powershell", py: "python", r: "r", rb: "ruby", rs: "rust", sh: "bash", sql: "sql", swift: "swift",
  tex: "latex", toml: "ini", ts: "typescript", tsv: "tsv", xml: "xml", yaml: "yaml", yml: "yaml",
};

/** Whether a pasted text is so long that it stands beside the question, not in it. */
export function isLongPaste(text) {
  return text.length > MIN_PASTED_CHARACTERS;
}

/** A pasted text as an attachment: "Pasted text, 2,213 words"; in characters where the script has no spaces. */
export function pastedText(text) {
  const words = text.split(/\s+/).filter(Boolean).length;
  const hasWords = text.length / words <= MAX_CHARACTERS_PER_WORD;
  const count = (hasWords ? words : text.length).toLocaleString("en");
  return { name: `${PASTED}, ${count} ${hasWords ? "words" : "characters"}`, kind: "text", text };
}

/** The content of a message: the attachments, then the question; a list of parts only where there are images. */
export function contentOf(question, attachments = []) {
  const texts = attachments.filter((each) => each.kind === "text").map(quoted);
  const text = [...texts, question].filter(Boolean).join("\n\n");
  const images = attachments.filter((each) => each.kind === "image");
  if (!images.length) return text;
  return [...images.map(({ url }) => ({ type: "image_url", image_url: { url } })), { type: "text", text }];
}

/** About how many tokens an attachment has: a text before an engine has counted it, an image always. */
export function estimatedTokens({ kind, text }) {
  return kind === "image" ? IMAGE_TOKENS : Math.ceil(text.length / CHARACTERS_PER_TOKEN);
}

/** A text in a fence that nothing in it can close. */
function quoted({ name, text }) {
  const longest = (text.match(/`+/g) ?? []).reduce((most, ticks) => Math.max(most, ticks.length), 2);
  const fence = "`".repeat(longest + 1);
  const ending = name.split(".").at(-1).toLowerCase();
  const language = Object.hasOwn(LANGUAGES, ending) ? LANGUAGES[ending] : "";
  return `${name}:\n\n${fence}${language}\n${text}\n${fence}`;
}
