// The judge's analysis as data and as elements, complete or still being written.

import { fill, h } from "./dom.js";
import { parsePartial } from "./partial_json.js";
import { isFinished } from "./run_state.js";

/** The analysis as far as it is written, with the members' names in place of their letters where they are known. */
export function readAnalysis(analysis, labels) {
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

/** The sections of an analysis that are not empty, disagreements first. */
function analysisSections(comparison) {
  return [
    section("disagree", "Where they disagree", comparison.contradictions.map(contradiction)),
    section("agree", "Where they agree", list(comparison.consensus.map((point) => [point]))),
    section(
      "partial",
      "What only some cover",
      list(comparison.partial.map(({ models, point }) => [...models.map(pill), point])),
    ),
    section(
      "unique",
      "What only one says",
      list(comparison.unique.map(({ model, insight }) => [pill(model), insight])),
    ),
    section("gaps", "What none of them covers", list(comparison.gaps.map((point) => [point]))),
  ].filter(Boolean);
}

/** An element that shows an analysis while it is written. */
export function analysisView() {
  const element = h("div", { className: "comparison" });
  let shown = "";
  return {
    element,
    update(run) {
      const comparison = readAnalysis(run.analysis, run.labels);
      const nothing = emptyText(run);
      const now = JSON.stringify([comparison, nothing]);
      if (now === shown) return;
      shown = now;
      const sections = analysisSections(comparison);
      fill(element, ...(sections.length ? sections : [h("p", { className: "muted" }, nothing)]));
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

function contradiction({ topic, stances }) {
  return h(
    "div",
    { className: "contradiction" },
    h("p", { className: "topic" }, topic),
    h(
      "dl",
      { className: "stances" },
      ...stances.map(({ model, stance }) =>
        h("div", { className: "stance" }, h("dt", { className: "name" }, model), h("dd", {}, stance)),
      ),
    ),
  );
}

function list(points) {
  return points.length ? [h("ul", {}, ...points.map((parts) => h("li", {}, ...parts)))] : [];
}

function pill(model) {
  return h("span", { className: "name pill" }, model);
}
