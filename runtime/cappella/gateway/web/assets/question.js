// A question as its turn shows it: the text, cut to a few lines, and what was attached to it, folded away.

import { h } from "./dom.js";
import { describeChoice } from "./request.js";

const EXCERPT_CHARACTERS = 80;

/** The first words of a question, to name its turn. */
export function excerpt({ question, attachments = [] }) {
  return (question || attachments[0]?.name || "").slice(0, EXCERPT_CHARACTERS);
}

/** The element of a question, with how it was asked, if not as configured. */
export function questionView({ question, attachments = [], choice, leftOut = 0 }) {
  const turns = leftOut === 1 ? "the oldest turn" : `the ${leftOut} oldest turns`;
  return h(
    "div",
    { className: "question" },
    h("h2", { className: "eyebrow" }, "You", h("span", { className: "unseen" }, `asked: ${excerpt({ question, attachments })}`)),
    ...attachments.map(attachmentView),
    question && clampedText(question),
    howView(choice),
    leftOut > 0 && h("p", { className: "small muted" }, `Asked without ${turns}, for which there was no more room.`),
  );
}

/** How the question was asked; a system prompt is folded away in it. */
function howView(choice) {
  const words = describeChoice(choice);
  if (!choice.system) return words && h("p", { className: "small muted" }, words);
  return h("details", { className: "small muted" }, h("summary", {}, words), h("p", { className: "how-system" }, choice.system));
}

function attachmentView({ name, kind, text, url }) {
  const props = { className: "attached-text", tabindex: 0, role: "group", "aria-label": name };
  const content = kind === "image" ? h("img", { src: url, alt: name }) : h("div", props, text);
  return h("details", { className: "attached" }, h("summary", {}, name), content);
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
