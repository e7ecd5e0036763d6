// What can be done with a turn that is over: ask again in another way, change the question, go on from here.

import { h } from "./dom.js";
import { editQuestion } from "./question_editor.js";

/** Add the ways on to a turn: `askAgain(turn, {question, choice})` replaces it, `branch(turn)` goes on elsewhere. */
export function addTurnMenu(turn, strategies, { askAgain, branch }) {
  const { view, question, choice } = turn;
  const edit = () => editQuestion(view.question, question, (words) => askAgain(turn, { question: words, choice }));
  const button = (word, title, onclick) => h("button", { type: "button", title, "aria-label": title, onclick }, word);
  view.actions.append(
    againMenu(strategies, (strategy) =>
      askAgain(turn, { question, choice: strategy === null ? choice : { ...choice, strategy, analysis: "" } }),
    ),
    button("Edit", "Edit the question", edit),
    button("Branch", "Branch from here", () => branch(turn)),
  );
}

function againMenu(strategies, again) {
  const menu = h(
    "select",
    { "aria-label": "Ask again in another way" },
    h("option", { value: "" }, "Ask again…"),
    h("option", { value: "same" }, "In the same way"),
    ...strategies.map((name) => h("option", { value: name }, `With ${name}`)),
  );
  menu.addEventListener("change", () => {
    const way = menu.value;
    menu.value = "";
    if (way) again(way === "same" ? null : way);
  });
  return menu;
}
