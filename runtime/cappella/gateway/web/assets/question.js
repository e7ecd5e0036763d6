// A question as its turn shows it: the text, cut to a few lines, and long pasted parts folded away.

import { h } from "./dom.js";

const MIN_PASTED_WORDS = 150;
const MIN_PASTED_CHARACTERS = 1000;
const MAX_CHARACTERS_PER_WORD = 20;
const EXCERPT_CHARACTERS = 80;

/** Whether a pasted text is long enough to be folded away. */
export function isLongPaste(text) {
  return countWords(text) >= MIN_PASTED_WORDS || text.trim().length >= MIN_PASTED_CHARACTERS;
}

/** A question in parts `{text, isPasted}`, in order. A paste that was edited afterwards is ordinary text. */
export function splitPastes(question, pastes) {
  const parts = [];
  let rest = question;
  for (;;) {
    const [at, paste] = firstPaste(rest, pastes);
    const text = rest.slice(0, at).trim();
    if (text) parts.push({ text, isPasted: false });
    if (!paste) return parts;
    parts.push({ text: paste, isPasted: true });
    rest = rest.slice(at + paste.length);
  }
}

/** "Pasted text, 2,213 words"; in characters where the script has no spaces. */
export function pasteLabel(text) {
  const words = countWords(text);
  const hasWords = text.length / words <= MAX_CHARACTERS_PER_WORD;
  const count = (hasWords ? words : text.length).toLocaleString("en");
  return `Pasted text, ${count} ${hasWords ? "words" : "characters"}`;
}

/** The first words of a question, to name its turn. */
export function excerpt(question) {
  return question.slice(0, EXCERPT_CHARACTERS);
}

/** The element of a question; `how` says how it was asked, if not as configured. */
export function questionView(question, pastes, how) {
  const parts = splitPastes(question, pastes);
  return h(
    "div",
    { className: "question" },
    h("h2", { className: "eyebrow" }, "You", h("span", { className: "unseen" }, `asked: ${excerpt(question)}`)),
    ...parts.map((part) => (part.isPasted ? pastedText(part.text) : clampedText(part.text))),
    how && h("p", { className: "small muted" }, how),
  );
}

function pastedText(text) {
  const props = { className: "pasted-text", tabindex: 0, role: "group", "aria-label": "Pasted text" };
  return h("details", { className: "pasted" }, h("summary", {}, pasteLabel(text)), h("div", props, text));
}

/** Text of which only the first lines are shown, with a button for the rest where there is more. */
function clampedText(text) {
  const words = h("p", { className: "question-text clamped" }, text);
  const button = h("button", { type: "button", className: "quiet", "aria-expanded": "false", hidden: true }, "Show all");
  button.addEventListener("click", () => {
    const isClamped = words.classList.toggle("clamped");
    button.textContent = isClamped ? "Show all" : "Show less";
    button.setAttribute("aria-expanded", String(!isClamped));
  });
  const measure = () => {
    if (words.classList.contains("clamped")) button.hidden = words.scrollHeight <= words.clientHeight + 1;
  };
  new ResizeObserver(measure).observe(words);
  return h("div", { className: "clamp" }, words, button);
}

function firstPaste(text, pastes) {
  const found = pastes.map((paste) => [text.indexOf(paste), paste]).filter(([at]) => at >= 0);
  found.sort(([a], [b]) => a - b);
  return found[0] ?? [text.length, null];
}

function countWords(text) {
  return text.split(/\s+/).filter(Boolean).length;
}
