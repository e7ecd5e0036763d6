// Below an answer: the sources that it cites, and folded away what else the run found.

import { foundByText, linkCitations, passageCard, passageView, placeOf } from "./citations.js";
import { fill, h } from "./dom.js";

/** The element of an answer's sources; `show(run, answer)` fills it and links the answer, `link(run, texts)` other texts. */
export function foundSources(label = "Sources of the answer") {
  const element = h("section", { className: "found", hidden: true, "aria-label": label });
  const card = passageCard();
  return {
    element,
    show(run, answer) {
      const sources = run?.fusion?.sources ?? [];
      element.hidden = sources.length === 0;
      if (element.hidden) return;
      linkCitations(answer, sources, card.show);
      const [cited, others] = [sources.filter((each) => each.cited), sources.filter((each) => !each.cited)];
      fill(element, h("h3", {}, "Sources"), cited.length ? list(cited) : none(), others.length > 0 && folded(others), card.element);
    },
    link(run, texts) {
      const sources = run?.fusion?.sources ?? [];
      if (sources.length) for (const text of texts) linkCitations(text, sources, card.show);
    },
  };
}

function none() {
  return h("p", { className: "small muted" }, "The answer cites none of the passages that were found.");
}

function folded(sources) {
  const words = `${sources.length} more ${sources.length === 1 ? "passage was" : "passages were"} found`;
  return h("details", {}, h("summary", { className: "small muted" }, words), list(sources));
}

function list(sources) {
  return h("ul", { className: "plain" }, ...sources.map(item));
}

function item(source) {
  const by = source.cited_by.length ? `; cited by ${source.cited_by.join(", ")}` : "";
  const head = h("summary", {}, h("b", {}, source.handle), ` ${placeOf(source)} `, h("span", { className: "small muted" }, foundByText(source) + by));
  return h("li", {}, h("details", {}, head, ...passageView(source)));
}
