// An error on the page: what happened, how to fix it, and what to do next.

import { fill, h, setText } from "./dom.js";
import { describeError } from "./errors.js";
import { askForKey } from "./key_dialog.js";
import { watchStages } from "./loading_stages.js";

const REFRESH_MS = 1000;

/**
 * A note about an error; `again()` sends the request again, or returns false. Call `dispose()` when the note is removed, or out of
 * sight: from then on it does nothing of itself.
 */
export function errorNote(api, error, { again, model }) {
  const problem = describeError(error);
  const actions = h("div", { className: "row" });
  const element = h(
    "div",
    { className: "note bad" },
    h("strong", {}, problem.title),
    h("p", {}, problem.words),
    problem.hint && h("p", {}, problem.hint),
    actions,
  );
  let stop = () => {};
  let isOver = false;
  const retry = () => {
    if (again() !== false) dispose();
  };
  const retryOfItself = () => isOver || retry();
  const dispose = () => {
    isOver = true;
    stop();
  };
  if (problem.remedy === "key") {
    const ask = async () =>
      (await askForKey(api, error.status === 401 && api.key ? "The server does not know that key." : null)) && retryOfItself();
    fill(actions, button("Enter a key", ask, true), button("Ask again", retry));
    if (error.status === 401) ask();
  } else if (problem.remedy === "wait") {
    stop = showCountdown(actions, problem.waitS ?? 1, retry, retryOfItself);
  } else if (problem.remedy === "loading") {
    stop = watchLoading(api, element, actions, model, retry, retryOfItself);
  } else if (problem.remedy === "retry") {
    fill(actions, button("Ask again", retry, true));
  } else {
    actions.remove();
  }
  return { element, dispose };
}

function button(text, onclick, primary = false) {
  return h("button", { type: "button", className: primary ? "primary" : "", onclick }, text);
}

/** Count down to the time that the server named; then send again, if the user chose that. */
function showCountdown(actions, waitS, retry, retryOfItself) {
  const due = performance.now() + waitS * 1000;
  const clock = h("span", { className: "small muted number" });
  const askButton = button("Ask again", retry, true);
  const automatic = h("input", { type: "checkbox" });
  fill(actions, askButton, h("label", {}, automatic, " Ask again automatically"), clock);
  const tick = () => {
    const leftS = Math.ceil((due - performance.now()) / 1000);
    askButton.disabled = leftS > 0;
    setText(clock, leftS > 0 ? `in ${leftS} s` : "now");
    if (leftS <= 0 && automatic.checked) retryOfItself();
  };
  tick();
  const timer = setInterval(tick, REFRESH_MS);
  return () => {
    clearInterval(timer);
    fill(actions, button("Ask again", retry, true));
  };
}

/** Show the stages of the engines until the ensemble can answer; then send again, if the user wants that. */
function watchLoading(api, element, actions, model, retry, retryOfItself) {
  const automatic = h("input", { type: "checkbox", checked: true });
  const stages = h("ul", { className: "loading" });
  element.classList.replace("bad", "warn");
  fill(actions, h("label", {}, automatic, " Ask as soon as enough engines are ready"), button("Ask again", retry));
  element.append(stages);
  const stop = watchStages(api, stages, model.replace(/^cappella\//, ""), (answers) => {
    if (answers && automatic.checked && element.isConnected) retryOfItself();
  });
  return () => {
    stop();
    stages.remove();
    fill(actions, button("Ask again", retry, true));
  };
}
