// How the answers of a panel became one: votes, the judge's shares, the members' ranking, letters and names.

import { h } from "./dom.js";
import { list } from "./trouble.js";

/** What is known of a decision as an element; null if there is nothing to tell. */
export function decisionView(run) {
  const { fusion } = run;
  const facts = [
    letters(fusion.labels),
    gate(run.gate ?? fusion.gate),
    earlyExit(fusion),
    fusion.chosen && fusion.status !== "bypassed" && h("p", {}, `The answer is ${fusion.chosen}'s, word for word.`),
    fusion.probabilities && shares("The judge's share for each answer", fusion.probabilities, fusion.chosen),
    fusion.votes && votes(fusion.votes),
    fusion.ranking && ranking(fusion.ranking),
    fusion.rounds && h("p", {}, `The panel answered in ${fusion.rounds.length} rounds; shown is the last one.`),
  ].filter(Boolean);
  return facts.length ? h("div", { className: "decision" }, ...facts) : null;
}

function letters(labels) {
  const pairs = Object.entries(labels ?? {});
  if (pairs.length === 0) return null;
  return h(
    "p",
    {},
    "The judge read the answers without names: ",
    ...pairs.flatMap(([letter, name], at) => [at ? ", " : "", h("span", { className: "letter" }, letter), ` ${name}`]),
    ".",
  );
}

function gate(decision) {
  if (!decision) return null;
  return h(
    "p",
    {},
    decision.bypass
      ? `The gate sent this to ${decision.model} alone: ${decision.reason}`
      : `The gate asked the panel: ${decision.reason}`,
  );
}

function earlyExit({ early_exit: exit }) {
  if (!exit) return null;
  return h(
    "p",
    {},
    exit === "equal"
      ? "All answers were equal: nothing was left to judge."
      : "The judge saw that all say the same: nothing was left to write.",
  );
}

function shares(title, byName, chosen) {
  const sorted = Object.entries(byName).sort(([, a], [, b]) => b - a);
  return h(
    "div",
    {},
    h("h4", {}, title),
    h(
      "dl",
      { className: "shares" },
      ...sorted.map(([name, share]) => {
        const bar = h("i", { "aria-hidden": "true" });
        bar.style.setProperty("--share", share);
        return h(
          "div",
          { className: name === chosen ? "chosen" : "" },
          h("dt", {}, name),
          h("dd", {}, bar, `${Math.round(share * 100)} %`),
        );
      }),
    ),
  );
}

function votes(byName) {
  const total = Object.values(byName).reduce((sum, who) => sum + who.length, 0);
  const sorted = Object.entries(byName).sort(([, a], [, b]) => b.length - a.length);
  return h(
    "div",
    {},
    h("h4", {}, "Votes"),
    h(
      "ul",
      { className: "plain" },
      ...sorted.map(([name, who]) =>
        h(
          "li",
          {},
          h("strong", { className: "number" }, `${who.length} of ${total}`),
          ` for ${name}'s wording: ${list(who)}`,
        ),
      ),
    ),
  );
}

function ranking(names) {
  return h(
    "div",
    {},
    h("h4", {}, "The members' own ranking"),
    h("ol", { className: "ranking" }, ...names.map((name) => h("li", {}, name))),
  );
}
