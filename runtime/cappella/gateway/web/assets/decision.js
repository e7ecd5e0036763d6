// How one answer was decided: votes, the judge's probabilities or scores, the members' ranking, letters and names.

import { h } from "./dom.js";
import { joinNames } from "./format.js";

/** An element with what is known of the decision; null if nothing is. */
export function decisionView(run) {
  const { fusion } = run;
  const facts = [
    letters(fusion.labels),
    gate(run.gate ?? fusion.gate),
    earlyExit(fusion),
    fusion.chosen && fusion.status !== "bypassed" && chosen(fusion.chosen),
    fusion.merged && merged(fusion.merged),
    fusion.probabilities && shares("The judge's probability for each answer", fusion.probabilities, fusion.chosen),
    fusion.scores && scores(fusion),
    fusion.votes && votes(fusion.votes),
    fusion.ranking && ranking(fusion.ranking),
    fusion.rounds && h("p", {}, `The panel answered in ${fusion.rounds.length} rounds; the last one is shown.`),
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

function chosen(name) {
  return h("p", {}, `The answer is that of ${name}, word for word.`);
}

function merged(authors) {
  return h("p", {}, `The answer joins the fields that most gave: those of ${joinNames(authors)}.`);
}

function earlyExit({ early_exit: exit }) {
  if (!exit) return null;
  return h(
    "p",
    {},
    exit === "equal"
      ? "All answers were equal: nothing was left to judge."
      : "The judge found that all answers agree: nothing was left to write.",
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

function scores({ scores: byName, tied }) {
  const sorted = Object.entries(byName).sort(([, a], [, b]) => (b ?? -Infinity) - (a ?? -Infinity));
  return h(
    "div",
    {},
    h("h4", {}, "The judge's score for each answer"),
    h("ul", { className: "plain" }, ...sorted.map(([name, score]) => h("li", {}, `${name}: ${scoreText(score)}`))),
    tied ? h("p", {}, `${joinNames(tied)} have the best score: the first of them was taken.`) : null,
  );
}

function scoreText(score) {
  return score === null ? "longer than the judge can read" : score.toFixed(3);
}

function votes(byName) {
  const total = Object.values(byName).reduce((sum, voters) => sum + voters.length, 0);
  const sorted = Object.entries(byName).sort(([, a], [, b]) => b.length - a.length);
  return h(
    "div",
    {},
    h("h4", {}, "Votes"),
    h(
      "ul",
      { className: "plain" },
      ...sorted.map(([name, voters]) =>
        h(
          "li",
          {},
          h("strong", { className: "number" }, `${voters.length} of ${total}`),
          ` for ${name}'s wording: ${joinNames(voters)}`,
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
