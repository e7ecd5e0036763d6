// The judge's analysis as data and as elements, whole or still being written.

import { fill, h } from "./dom.js";
import { parsePartial } from "./partial_json.js";
import { isOver } from "./run.js";

/** What is known of an analysis by now, every letter a member's name where the letter's owner is known. */
export function comparisonOf(analysis, labels) {
  const value = analysis.value ?? parsePartial(analysis.text) ?? {};
  const named = (label) => labels[label] ?? label;
  const all = (name) => (Array.isArray(value[name]) ? value[name].filter(Boolean) : []);
  return {
    consensus: all("consensus").map(String),
    contradictions: all("contradictions").map(({ topic = "", stances = [] }) => ({
      topic,
      stances: stances.filter((each) => each.model).map(({ model, stance = "" }) => ({ model: named(model), stance })),
    })),
    partial: all("partial_coverage").map(({ models = [], point = "" }) => ({ models: models.map(named), point })),
    unique: all("unique_insights").map(({ model = "", insight = "" }) => ({ model: named(model), insight })),
    gaps: all("blind_spots").map(String),
  };
}

/** Whether there is anything in it to show. */
export function saysAnything(comparison) {
  return Object.values(comparison).some((part) => part.length > 0);
}

/** The sections of an analysis that have something in them, where they disagree first. */
export function comparisonSections(comparison) {
  return [
    section("disagree", "Where they disagree", comparison.contradictions.map(contradiction)),
    section("agree", "Where they agree", list(comparison.consensus.map((point) => [point]))),
    section(
      "partial",
      "What only some say",
      list(comparison.partial.map(({ models, point }) => [...models.map(pill), point])),
    ),
    section(
      "unique",
      "What one alone says",
      list(comparison.unique.map(({ model, insight }) => [pill(model), insight])),
    ),
    section("gaps", "What nobody says", list(comparison.gaps.map((point) => [point]))),
  ].filter(Boolean);
}

/** An element that shows an analysis as it comes. */
export function comparisonView() {
  const element = h("div", { className: "comparison" });
  let shown = "";
  return {
    element,
    update(run) {
      const comparison = comparisonOf(run.analysis, run.labels);
      const nothing = wordsForNone(run);
      const now = JSON.stringify([comparison, nothing]);
      if (now === shown) return;
      shown = now;
      const sections = comparisonSections(comparison);
      fill(element, ...(sections.length ? sections : [h("p", { className: "muted" }, nothing)]));
    },
  };
}

/** What stands in the place of an analysis that says nothing. */
export function wordsForNone(run) {
  if (run.analysis.isWhole) return "The judge found nothing to compare.";
  return isOver(run) ? "The judge's comparison broke off." : "The judge compares the answers…";
}

function section(kind, title, content) {
  if (content.length === 0) return null;
  return h("section", { className: `points ${kind}` }, h("h4", {}, title), ...content);
}

function contradiction({ topic, stances }) {
  return h(
    "div",
    { className: "contradiction" },
    h("p", { className: "topic" }, topic),
    h(
      "dl",
      { className: "stances" },
      ...stances.map(({ model, stance }) => h("div", { className: "stance" }, h("dt", {}, model), h("dd", {}, stance))),
    ),
  );
}

function list(points) {
  return points.length ? [h("ul", {}, ...points.map((parts) => h("li", {}, ...parts)))] : [];
}

function pill(model) {
  return h("span", { className: "name pill" }, model);
}
