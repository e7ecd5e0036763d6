// An answer's sentences, each leading to the members' words that it resembles.

import { fill, freshId, h } from "./dom.js";
import { list } from "./trouble.js";

const KINDS = {
  said: "Said by",
  joined: "Put together from",
  partly: "In part like",
  none: "No member said this in such words",
  short: "Too short to be traced",
};

/**
 * Make the marked sentences of `answer` lead to their sources; returns the note that says what they are.
 * One stop for the tab key: arrows go from sentence to sentence.
 */
export function tracer(answer, said, answers, found) {
  const id = freshId("trace");
  const note = h("div", { className: "trace", id });
  const passagesOf = Object.fromEntries(answers.map(({ name, passages }) => [name, passages]));
  let current = -1;

  const show = (at) => {
    if (at === current) return;
    current = at;
    light(answer.parentElement.parentElement);
    if (at < 0) return fill(note, ...summary(found));
    const trace = found[at];
    for (const span of said[at].spans) span.classList.add("lit");
    for (const { name, at: places } of trace.sources) {
      for (const place of places) for (const span of passagesOf[name][place].spans) span.classList.add("lit");
    }
    fill(note, ...detail(trace, passagesOf));
  };
  const focusable = said.flatMap(({ spans }, at) => (spans.length ? [{ span: spans[0], at }] : []));
  said.forEach(({ spans }, at) => {
    const who = sourcesOf(found[at]);
    if (who && who !== sourcesOf(found[at + 1])) spans.at(-1)?.setAttribute("data-who", who);
    for (const span of spans) {
      span.classList.add(`is-${found[at].kind}`);
      span.addEventListener("pointerenter", () => show(at));
    }
  });
  focusable.forEach(({ span, at }, place) => {
    span.tabIndex = place === 0 ? 0 : -1;
    span.setAttribute("aria-describedby", id);
    span.addEventListener("focus", () => show(at));
    span.addEventListener("keydown", (event) => {
      const next = focusable[place + (STEPS[event.key] ?? 0)]?.span;
      if (!(event.key in STEPS) || !next) return;
      event.preventDefault();
      span.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  });
  answer.addEventListener("pointerleave", () =>
    show(focusable.findLast(({ span }) => span === document.activeElement)?.at ?? -1),
  );
  answer.addEventListener("focusout", () => show(-1));
  current = 0;
  show(-1);
  return note;
}

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

/** The sources of a sentence in a few words, to stand behind it. */
function sourcesOf(trace) {
  const names = trace?.sources.map((each) => each.name) ?? [];
  return names.length > 3 ? `${names.slice(0, 2).join(", ")} +${names.length - 2}` : names.join(", ");
}

function light(turn) {
  for (const span of turn.querySelectorAll(".lit")) span.classList.remove("lit");
}

function summary(found) {
  const traceable = found.filter((each) => each.kind !== "short");
  const count = (...kinds) => traceable.filter((each) => kinds.includes(each.kind)).length;
  const none = count("none");
  const parts = [
    `${count("said", "joined")} of ${traceable.length} sentences resemble what members said`,
    count("partly") && `${count("partly")} in part`,
    none && `${none} no member said in such words`,
  ].filter(Boolean);
  return [
    h("p", {}, `${parts.join(", ")}.`),
    h(
      "p",
      { className: "muted" },
      "Point at a sentence, or go through them with the arrow keys, to see whose words it resembles:",
      " similar words, not proof.",
    ),
  ];
}

function detail(trace, passagesOf) {
  const names = trace.sources.map((each) => each.name);
  const head = h(
    "p",
    {},
    h("strong", {}, `${KINDS[trace.kind]} ${list(names)}`.trim()),
    trace.kind === "short"
      ? null
      : h("span", { className: "muted" }, ` · ${percent(trace.score)} similar words, not proof`),
  );
  const sources = trace.sources.map(({ name, score, at, opposed }) =>
    h(
      "li",
      {},
      h("span", { className: "name pill" }, name),
      h("span", { className: "number muted" }, percent(score)),
      " ",
      h("q", {}, at.map((place) => passagesOf[name][place].text).join(" ")),
      opposed && h("em", {}, " One of the two denies something, the other does not."),
    ),
  );
  const missing =
    trace.missing.length > 0 &&
    trace.kind !== "short" &&
    h("p", { className: "muted" }, `In no answer: ${trace.missing.join(", ")}`);
  return [head, sources.length > 0 && h("ul", {}, ...sources), missing].filter(Boolean);
}

function percent(share) {
  return `${Math.round(share * 100)} %`;
}
