// One member of a panel: what it writes, its state, and its share of the time.

import { copyButton } from "./copy.js";
import { h, setText } from "./dom.js";
import { formatSeconds, formatTokens } from "./format.js";
import { showMarkdown } from "./markdown_view.js";
import { tokensOf, tokensPerSecond } from "./run_state.js";
import { memberReasonText } from "./run_text.js";

/** The elements of a member; `readInFull()` is called to read it at full width. */
export function memberColumn(name, readInFull) {
  const letter = h("span", { className: "letter", hidden: true });
  const state = h("span", { className: "state" });
  const facts = h("p", { className: "facts small muted number" });
  const read = h("i", { className: "bar-read" });
  const wrote = h("i", { className: "bar-wrote" });
  const failure = h("p", { className: "failure small", hidden: true });
  const thoughts = h("div", { className: "prose small muted" });
  const thinking = h(
    "details",
    { className: "thinking", hidden: true },
    h("summary", { className: "small muted" }, "Reasoning"),
    thoughts,
  );
  const text = h("div", {
    className: "prose member-text",
    tabindex: 0,
    role: "group",
    "aria-label": `What ${name} says`,
  });
  const readButton = h("button", { type: "button", className: "quiet", onclick: readInFull }, "Read in full");
  const copy = copyButton(() => written);
  let written = "";
  const element = h(
    "article",
    { className: "member", "aria-label": name },
    h("header", {}, letter, h("h4", {}, h("span", { className: "name" }, name)), state),
    h("div", { className: "bar", "aria-hidden": "true" }, read, wrote),
    facts,
    failure,
    thinking,
    text,
    h("div", { className: "row member-actions" }, readButton, copy),
  );
  return {
    element,
    text,
    letter: () => letter.textContent || null,
    written: () => written,
    update(member, label, spanMs, nowMs) {
      element.dataset.state = member.state;
      letter.hidden = label === null;
      setText(letter, label ?? "");
      letter.title = "The judge saw only this letter, not the name";
      setText(state, member.state);
      setText(facts, factsText(member, nowMs));
      const first = member.firstMs ?? member.endedMs ?? nowMs;
      setShare(read, (first - member.startedMs) / spanMs);
      setShare(wrote, ((member.endedMs ?? nowMs) - first) / spanMs);
      failure.hidden = member.reason === null;
      setText(failure, member.reason === null ? "" : failureText(member));
      thinking.hidden = !member.reasoning;
      if (thinking.open) showMarkdown(thoughts, member.reasoning);
      thinking.ontoggle = () => showMarkdown(thoughts, member.reasoning);
      written = member.text || toolCallsText(member);
      copy.hidden = readButton.hidden = written === "";
      showMarkdown(text, written);
    },
  };
}

function factsText(member, nowMs) {
  const rate = tokensPerSecond(member, nowMs);
  const count = tokensOf(member);
  return [
    count > 0 ? `${member.tokens === null ? "≈ " : ""}${formatTokens(count)}` : null,
    rate === null ? null : `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} tokens/s`,
    formatSeconds((member.endedMs ?? nowMs) - member.startedMs),
  ]
    .filter(Boolean)
    .join(" · ");
}

function failureText(member) {
  const known = memberReasonText(member.reason);
  const more = member.error && known === member.reason ? `: ${member.error}` : "";
  const time = member.grace ? ` It had ${formatSeconds(member.grace.graceMs)} more than they.` : "";
  return `${member.state === "cancelled" ? "Cancelled" : "Failed"}: ${known}${more}.${time}`;
}

function toolCallsText(member) {
  return member.toolCalls.map((call) => `\`${call.name}(${call.arguments})\``).join("\n\n");
}

function setShare(element, share) {
  element.style.setProperty("--share", Math.max(0, Math.min(1, share)).toFixed(3));
}
