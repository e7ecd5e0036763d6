// How far the engines have come with loading, for as long as an ensemble cannot answer.

import { fill, h } from "./dom.js";

const REFRESH_MS = 1000;

/**
 * Show the engines' stages in `element`, a list, until the ensemble or model of this name can answer. `changed(answers)` is called after each
 * look at them. Returns a function that ends this.
 */
export function watchStages(api, element, name, changed) {
  const refresh = async () => {
    const state = await api.get("/api/machine").catch(() => null);
    if (state === null) return;
    fill(element, ...Object.entries(state.engines).map(stage));
    // Of a single model, its engine.
    changed(state.ensembles[name]?.answers ?? isUp(state.engines[name] ?? {}));
  };
  refresh();
  const timer = setInterval(refresh, REFRESH_MS);
  return () => clearInterval(timer);
}

function isUp({ state }) {
  return state === "ready" || state === "asleep";
}

function stage([name, engine]) {
  const left = engine.remaining_s ? `, about ${Math.ceil(engine.remaining_s)} s left` : "";
  const bar = h("progress", { max: 1, value: isUp(engine) ? 1 : engine.progress, "aria-label": `${name} loading` });
  const words = engine.reason ? `${engine.state}: ${engine.reason}` : `${engine.stage}${left}`;
  return h("li", {}, h("span", { className: "name" }, name), bar, h("span", { className: "small muted" }, words));
}
