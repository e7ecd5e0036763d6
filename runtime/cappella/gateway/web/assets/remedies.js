// An error as the user meets it: its words, and a way on.

import { fill, h, say } from "./dom.js";
import { askForKey } from "./key.js";
import { troubleOf } from "./trouble.js";

const LOOK_MS = 1000;

/** A note about an error; `again()` asks once more. Whoever shows it must call `forget()` when it goes. */
export function remedyNote(api, error, { again, model }) {
  const trouble = troubleOf(error);
  const way = h("div", { className: "row" });
  const element = h("div", { className: "note bad" }, h("strong", {}, trouble.title), h("p", {}, trouble.words), way);
  let ticking = 0;
  const forget = () => clearInterval(ticking);
  const retry = () => {
    forget();
    again();
  };
  if (trouble.remedy === "key") {
    const ask = async () =>
      (await askForKey(api, error.status === 401 && api.key ? "That key is not known here." : null)) && retry();
    fill(way, button("Enter a key", ask, true), button("Ask again", retry));
    if (error.status === 401) ask();
  } else if (trouble.remedy === "wait") {
    ticking = waitFor(way, trouble.waitS ?? 1, retry);
  } else if (trouble.remedy === "loading") {
    ticking = watchLoading(api, element, way, model, retry);
  } else if (trouble.remedy === "retry") {
    fill(way, button("Ask again", retry, true));
  } else {
    way.remove();
  }
  return { element, forget };
}

function button(text, onclick, primary = false) {
  return h("button", { type: "button", className: primary ? "primary" : "", onclick }, text);
}

/** Count down to when the server wants to be asked again; ask by itself if told to. */
function waitFor(way, waitS, retry) {
  const due = performance.now() + waitS * 1000;
  const clock = h("span", { className: "small muted number" });
  const asks = button("Ask again", retry, true);
  const itself = h("input", { type: "checkbox" });
  fill(way, asks, h("label", {}, itself, " Ask again by itself"), clock);
  const tick = () => {
    const leftS = Math.ceil((due - performance.now()) / 1000);
    asks.disabled = leftS > 0;
    say(clock, leftS > 0 ? `in ${leftS} s` : "now");
    if (leftS <= 0 && itself.checked) retry();
  };
  tick();
  return setInterval(tick, LOOK_MS);
}

/** Show the engines' stages until the ensemble can answer; then ask, if the user wants that. */
function watchLoading(api, element, way, model, retry) {
  const itself = h("input", { type: "checkbox", checked: true });
  const stages = h("ul", { className: "loading" });
  element.classList.replace("bad", "warn");
  fill(way, h("label", {}, itself, " Ask as soon as enough of them are up"), button("Ask again", retry));
  element.append(stages);
  const name = model.replace(/^cappella\//, "");
  const look = async () => {
    const state = await api.get("/api/machine").catch(() => null);
    if (state === null) return;
    fill(stages, ...Object.entries(state.engines).map(stage));
    if (state.ensembles[name]?.answers && itself.checked && element.isConnected) retry();
  };
  look();
  return setInterval(look, LOOK_MS);
}

function stage([name, engine]) {
  const settled = engine.state === "ready" || engine.state === "asleep";
  const left = engine.remaining_s ? `, about ${Math.ceil(engine.remaining_s)} s left` : "";
  const bar = h("progress", { max: 1, value: settled ? 1 : engine.progress, "aria-label": `${name} loading` });
  const words = engine.reason ? `${engine.state}: ${engine.reason}` : `${engine.stage}${left}`;
  return h("li", {}, h("span", {}, name), bar, h("span", { className: "small muted" }, words));
}
