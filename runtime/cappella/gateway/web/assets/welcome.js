// What a new conversation begins with: what this ensemble is for, and questions to try.

import { fill, h } from "./dom.js";

/** Fill the welcome of the ensemble that is chosen. */
export function showWelcome(element, composer) {
  const { panel, judge, examples, notice } = composer.controls.ensemble();
  const exampleButton = (example) =>
    h("button", { type: "button", className: "example", onclick: () => composer.setQuestion(example) }, example);
  fill(
    element,
    h("p", { className: "display" }, "Ask several models at once."),
    h(
      "p",
      { className: "lead muted" },
      `${panel.length} models answer side by side. ${judge} compares their answers and writes one from them,`,
      " and you see which model said what.",
    ),
    notice ? h("p", { className: "note" }, notice) : null,
    examples.length > 0 && h("p", {}, h("span", { className: "eyebrow" }, "Try")),
    h("div", { className: "examples" }, ...examples.map(exampleButton)),
  );
}
