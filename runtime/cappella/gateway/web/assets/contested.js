// What the members disagree about, in one line above the answer.

import { fill, h } from "./dom.js";

/** The element of the line; `show(comparison)` brings it up to date with the elements of the comparison. */
export function contestedLine() {
  const element = h("p", { className: "contested", hidden: true });
  return {
    element,
    show(comparison) {
      const topics = [...comparison.querySelectorAll("[data-topic]")];
      element.hidden = topics.length === 0;
      fill(element, h("strong", {}, "The members disagree: "), ...topics.map(topicButton));
    },
  };
}

function topicButton(point) {
  const goThere = () => {
    const evidence = point.closest("details");
    if (evidence) evidence.open = true;
    point.scrollIntoView({ block: "center" });
    point.focus({ preventScroll: true });
  };
  return h("button", { type: "button", className: "topic-link", onclick: goThere }, point.dataset.topic);
}
