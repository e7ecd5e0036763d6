// What a new conversation begins with: what this ensemble is for and cannot do, questions to try, and what still loads.

import { fill, h } from "./dom.js";
import { watchStages } from "./loading_stages.js";

let stopWatching = () => {};

/** Fill the welcome of the ensemble that is chosen. */
export function showWelcome(element, api, composer) {
  const { name, panel, judge, examples, notice } = composer.controls.ensemble();
  const exampleButton = (example) =>
    h("button", { type: "button", className: "example", onclick: () => composer.setQuestion(example) }, example);
  stopWatching();
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
    loading(api, name, () => element.hidden),
    examples.length > 0 && h("p", {}, h("span", { className: "eyebrow" }, "Try")),
    h("div", { className: "examples" }, ...examples.map(exampleButton)),
  );
}

/** A note on the engines that load, which goes away when they are there; `isOver` is whether a conversation has begun. */
function loading(api, name, isOver) {
  const stages = h("ul", { className: "loading" });
  const title = "The models are loading";
  const words = `${title}. You may ask already: the question is sent as soon as enough of them are ready.`;
  const note = h("div", { className: "note", role: "group", "aria-label": title, hidden: true }, h("p", {}, words), stages);
  stopWatching = watchStages(api, stages, name, (answers) => {
    note.hidden = answers;
    // In a conversation it is the note of the question that tells.
    if (answers || isOver()) stopWatching();
  });
  return note;
}
