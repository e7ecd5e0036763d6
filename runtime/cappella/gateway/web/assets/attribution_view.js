// Shows for each sentence of an answer which members' words it resembles.

import { fill, h, uniqueId } from "./dom.js";
import { joinNames } from "./format.js";

const KINDS = {
  said: "Said by",
  joined: "Combined from",
  partly: "Partly said by",
  none: "Said by no member in similar words",
  short: "Too short to be attributed",
};

/**
 * Make the marked sentences of `answer` show their sources, each member by its letter; returns the note that names them.
 * All sentences are one tab stop: the arrow keys go from one to the next.
 */
export function attributionView(answer, sentences, answers, found, letters) {
  const id = uniqueId("trace");
  const note = h("div", { className: "trace", id });
  const passagesOf = Object.fromEntries(answers.map(({ name, passages }) => [name, passages]));
  let current = -1;

  const show = (at) => {
    if (at === current) return;
    current = at;
    clearHighlights(answer.parentElement.parentElement);
    note.classList.toggle("is-current", at >= 0);
    if (at < 0) return fill(note, ...summary(found, letters));
    const trace = found[at];
    for (const span of sentences[at].spans) span.classList.add("highlighted");
    for (const { name, at: places } of trace.sources) {
      for (const place of places) for (const span of passagesOf[name][place].spans) span.classList.add("highlighted");
    }
    fill(note, ...detail(trace, passagesOf));
  };
  const focusable = sentences.flatMap(({ spans }, at) => (spans.length ? [{ span: spans[0], at }] : []));
  sentences.forEach(({ spans }, at) => {
    const mark = markOf(found[at], letters);
    if (mark && !(sentences[at + 1] && isSameSource(found[at], found[at + 1]))) spans.at(-1)?.setAttribute("data-mark", mark);
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
  // The note of a sentence may come to lie under the pointer: it stays for as long as the pointer is in it.
  const leave = (event) => {
    if (!note.contains(event.relatedTarget)) show(focusable.findLast(({ span }) => span === document.activeElement)?.at ?? -1);
  };
  answer.addEventListener("pointerleave", leave);
  note.addEventListener("pointerleave", leave);
  answer.addEventListener("focusout", () => note.matches(":hover") || show(-1));
  current = 0;
  show(-1);
  return note;
}

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

/** One sign for the sources of a sentence: a member's letter, a number of members; none where all said it. */
function markOf({ kind, sources }, letters) {
  if (kind === "none") return "?";
  if (sources.length === 1) return Object.keys(letters).length > 1 ? letters[sources[0].name] : null;
  return sources.length > 1 && sources.length < Object.keys(letters).length ? String(sources.length) : null;
}

function isSameSource(trace, next) {
  const text = ({ kind, sources }) => JSON.stringify([kind === "none", sources.map((each) => each.name).sort()]);
  return text(trace) === text(next);
}

function clearHighlights(turn) {
  for (const span of turn.querySelectorAll(".highlighted")) span.classList.remove("highlighted");
}

function summary(found, letters) {
  const traceable = found.filter((each) => each.kind !== "short");
  const count = (...kinds) => traceable.filter((each) => kinds.includes(each.kind)).length;
  const none = count("none");
  const parts = [
    `${count("said", "joined")} of ${traceable.length} sentences resemble what members said`,
    count("partly") && `${count("partly")} partly`,
    none && `${none} without a source`,
  ].filter(Boolean);
  const key = Object.entries(letters).flatMap(([name, letter]) => [h("b", {}, letter), ` ${name} · `]);
  return [
    h("p", {}, `${parts.join(", ")}.`),
    h("p", { className: "muted" }, ...key, "a number: so many members, not all · ", h("b", {}, "?"), " none"),
    h(
      "p",
      { className: "muted" },
      "Point at a sentence, or use the arrow keys, to see whose words it resembles:",
      " similar words, not proof.",
    ),
  ];
}

function detail(trace, passagesOf) {
  const names = trace.sources.map((each) => each.name);
  const head = h(
    "p",
    {},
    h("strong", {}, `${KINDS[trace.kind]} ${joinNames(names)}`.trim()),
    trace.kind === "short"
      ? null
      : h("span", { className: "muted" }, ` · ${percent(trace.score)} similar words, not proof`),
  );
  const sources = trace.sources.map(({ name, score, at, isNegated }) =>
    h(
      "li",
      {},
      h("span", { className: "name pill" }, name),
      h("span", { className: "number muted" }, percent(score)),
      " ",
      h("q", {}, at.map((place) => passagesOf[name][place].text).join(" ")),
      isNegated && h("em", {}, " One of the two negates, the other does not."),
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
