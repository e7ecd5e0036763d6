// The members of a panel as columns: what each writes, its state, and its share of the time.

import { fill, h, setText } from "./dom.js";
import { formatSeconds } from "./format.js";
import { showMarkdown } from "./markdown_view.js";
import { tokensOf, tokensPerSecond } from "./run_state.js";
import { memberReasonText } from "./run_text.js";

/** The columns of a run; `update(run, nowMs)` brings them up to date, `columns` finds one by its member's name. */
export function memberColumns() {
  const element = h("div", { className: "members" });
  const columns = new Map();
  return {
    element,
    columns,
    update(run, nowMs) {
      if (run.panel.some((name) => !columns.has(name)) || columns.size !== run.panel.length) {
        columns.clear();
        for (const name of Object.keys(run.members)) columns.set(name, column(name));
        fill(element, ...[...columns.values()].map((each) => each.element));
      }
      const spanMs = Math.max(
        1,
        ...Object.values(run.members).map((member) => (member.endedMs ?? nowMs) - member.startedMs),
      );
      for (const [name, each] of columns) each.update(run.members[name], letterOf(run, name), spanMs, nowMs);
    },
  };
}

/** The letter under which the judge read a member's answer. */
function letterOf(run, name) {
  return Object.entries(run.labels).find(([, each]) => each === name)?.[0] ?? null;
}

function column(name) {
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
  const element = h(
    "article",
    { className: "member", "aria-label": name },
    h("header", {}, letter, h("h4", {}, h("span", { className: "name" }, name)), state),
    h("div", { className: "bar", "aria-hidden": "true" }, read, wrote),
    facts,
    failure,
    thinking,
    text,
  );
  return {
    element,
    text,
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
      showMarkdown(text, member.text || toolCallsText(member));
    },
  };
}

function factsText(member, nowMs) {
  const rate = tokensPerSecond(member, nowMs);
  const count = tokensOf(member);
  return [
    count > 0 ? `${member.tokens === null ? "≈ " : ""}${count} tokens` : null,
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
