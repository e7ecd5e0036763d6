// The judge's analysis as data and as elements, complete or still being written.

import { fill, h } from "./dom.js";
import { inlineMarkdown } from "./markdown_view.js";
import { parsePartial } from "./partial_json.js";
import { isFinished } from "./run_state.js";

/** The analysis as far as it is written, with the members' names in place of their letters where they are known. */
export function readAnalysis(analysis, labels) {
  const value = analysis.value ?? parsePartial(analysis.text) ?? {};
  const named = (label) => labels[label] ?? text(label);
  return {
    consensus: list(value.consensus).map(text),
    contradictions: list(value.contradictions).map(({ topic, stances }) => ({
      topic: text(topic),
      stances: list(stances)
        .filter((each) => each.model)
        .map(({ model, stance }) => ({ model: named(model), stance: text(stance) })),
    })),
    partial: list(value.partial_coverage).map(({ models, point }) => ({ models: list(models).map(named), point: text(point) })),
    unique: list(value.unique_insights).map(({ model, insight }) => ({ model: named(model), insight: text(insight) })),
    gaps: list(value.blind_spots).map(text),
  };
}

// A judge may write another kind of value, or null, in any place.
function text(value) {
  return String(value ?? "");
}

function list(value) {
  return Array.isArray(value) ? value.filter(Boolean) : [];
}

/** The sections of an analysis that are not empty, what is contested first; each point is added to `points`. */
function analysisSections(comparison, points) {
  const point = (text, models) => {
    const found = pointView(text, models);
    points.push(found);
    return found;
  };
  const item = (text, models) => h("li", {}, ...(models ?? []).map(pill), point(text, models).element);
  return [
    section("disagree", "Where they disagree", comparison.contradictions.map((each) => contradiction(each, point))),
    section("partial", "What only some cover", bullets(comparison.partial.map((each) => item(each.point, each.models)))),
    section("unique", "What only one says", bullets(comparison.unique.map((each) => item(each.insight, [each.model])))),
    section("gaps", "What none of them covers", bullets(comparison.gaps.map((text) => h("li", {}, ...inlineMarkdown(text))))),
    section("agree", "Where they agree", bullets(comparison.consensus.map((text) => h("li", {}, point(text, null).element)))),
  ].filter(Boolean);
}

/** An element that shows an analysis while it is written. `update` returns whether anything changed. */
export function analysisView() {
  const element = h("div", { className: "comparison" });
  let shown = "";
  let points = [];
  return {
    element,
    /** The points that rest on what members said: `rest(places, members)` links a point to its places. */
    points: () => points,
    update(run) {
      const comparison = readAnalysis(run.analysis, run.labels);
      const nothing = emptyText(run);
      const now = JSON.stringify([comparison, nothing]);
      if (now === shown) return false;
      shown = now;
      points = [];
      const sections = analysisSections(comparison, points);
      fill(element, ...(sections.length ? sections : [h("p", { className: "muted" }, nothing)]));
      return true;
    },
  };
}

/** The text for an analysis without points. */
export function emptyText(run) {
  if (run.analysis.isWhole) return "The judge found nothing to compare.";
  return isFinished(run) ? "The judge's comparison is incomplete." : "The judge compares the answers…";
}

function section(kind, title, content) {
  if (content.length === 0) return null;
  return h("section", { className: `points ${kind}` }, h("h4", {}, title), ...content);
}

function contradiction({ topic, stances }, point) {
  return h(
    "div",
    { className: "contradiction", tabindex: -1, "data-topic": topic },
    h("p", { className: "topic" }, ...inlineMarkdown(topic)),
    h(
      "dl",
      { className: "stances" },
      ...stances.map(({ model, stance }) =>
        h("div", { className: "stance" }, h("dt", { className: "name" }, model), h("dd", {}, point(stance, [model]).element)),
      ),
    ),
  );
}

/** A point in words, and after them the members on whose words it may rest: `{element, text, models, rest}`. */
function pointView(text, models) {
  const places = h("span", { className: "rests", hidden: true });
  const element = h("span", {}, ...inlineMarkdown(text), " ", places);
  const rest = (found, members) => {
    places.hidden = found.length === 0;
    fill(places, ...found.map(({ name, spans }) => restButton(name, spans, members)));
  };
  return { element, text, models, rest };
}

function restButton(name, spans, members) {
  const props = { type: "button", className: "rest", "aria-label": `Show where ${name} says this`, title: name };
  return h("button", { ...props, onclick: () => members.show(name, spans) }, "→\u00a0", members.letterOf(name) ?? name);
}

function bullets(items) {
  return items.length ? [h("ul", {}, ...items)] : [];
}

function pill(model) {
  return h("span", { className: "name pill" }, model);
}
