// The panel as columns: who says what, how far each is, and where its time goes.

import { fill, h, say } from "./dom.js";
import { showProse } from "./prose.js";
import { tokensOf, tokensPerSecond } from "./run.js";
import { memberReason, seconds } from "./trouble.js";

const STATES = {
  reading: "reading",
  thinking: "thinking",
  writing: "writing",
  done: "done",
  failed: "failed",
  cut: "cut",
  stopped: "stopped",
};

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
export function letterOf(run, name) {
  return Object.entries(run.labels).find(([, each]) => each === name)?.[0] ?? null;
}

function column(name) {
  const letter = h("span", { className: "letter", hidden: true });
  const state = h("span", { className: "state" });
  const facts = h("p", { className: "facts small muted number" });
  const read = h("i", { className: "bar-read" });
  const wrote = h("i", { className: "bar-wrote" });
  const why = h("p", { className: "why-not small", hidden: true });
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
    h("header", {}, letter, h("h4", {}, name), state),
    h("div", { className: "bar", "aria-hidden": "true" }, read, wrote),
    facts,
    why,
    thinking,
    text,
  );
  return {
    element,
    text,
    update(member, label, spanMs, nowMs) {
      element.dataset.state = member.state;
      letter.hidden = label === null;
      say(letter, label ?? "");
      letter.title = "The judge knew this answer by its letter alone";
      say(state, STATES[member.state]);
      say(facts, factsOf(member, nowMs));
      const first = member.firstMs ?? member.endedMs ?? nowMs;
      width(read, (first - member.startedMs) / spanMs);
      width(wrote, ((member.endedMs ?? nowMs) - first) / spanMs);
      why.hidden = member.reason === null;
      say(why, member.reason === null ? "" : reasonOf(member));
      thinking.hidden = !member.reasoning;
      if (thinking.open) showProse(thoughts, member.reasoning);
      thinking.ontoggle = () => showProse(thoughts, member.reasoning);
      showProse(text, member.text || callsOf(member));
    },
  };
}

function factsOf(member, nowMs) {
  const rate = tokensPerSecond(member, nowMs);
  const count = tokensOf(member);
  return [
    count > 0 ? `${member.tokens === null ? "≈ " : ""}${count} tokens` : null,
    rate === null ? null : `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} tokens/s`,
    seconds((member.endedMs ?? nowMs) - member.startedMs),
  ]
    .filter(Boolean)
    .join(" · ");
}

function reasonOf(member) {
  const known = memberReason(member.reason);
  const more = member.error && known === member.reason ? `: ${member.error}` : "";
  return `${member.state === "cut" ? "Cut" : "Failed"}: ${known}${more}.`;
}

function callsOf(member) {
  return member.toolCalls.map((call) => `\`${call.name}(${call.arguments})\``).join("\n\n");
}

function width(element, share) {
  element.style.setProperty("--share", Math.max(0, Math.min(1, share)).toFixed(3));
}
