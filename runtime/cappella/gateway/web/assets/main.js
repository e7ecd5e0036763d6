// The frame of the page: the views, the key, the theme, and how many engines are ready.

import { followAddress, putBackAddress } from "./address.js";
import { api } from "./api.js";
import { fill, h, setText } from "./dom.js";
import { askForKey } from "./key_dialog.js";

// A view that stays keeps running while another one is shown.
const VIEWS = {
  ask: { title: "Ask", load: () => import("./ask.js"), stays: true },
  compare: { title: "Compare", load: () => import("./compare.js"), stays: true },
  eval: { title: "Eval", load: () => import("./eval.js"), stays: true },
  batches: { title: "Batches", load: () => import("./batches.js"), stays: false },
  machine: { title: "Machine", load: () => import("./machine.js"), stays: false },
  run: { title: "Run", load: () => import("./kept_run.js"), stays: false },
};
const THEME = "cappella-theme";
const REFRESH_MS = 5000;

const main = document.getElementById("main");
const shown = new Map();
let current = null;
let changing = null;
let wish = null;

/** Show the view that the address names, and in it what stands behind the name: `#ask/ID`. */
async function showView() {
  if (location.hash === "#main" && current !== null) {
    main.focus();
    return putBackAddress();
  }
  const [wanted, id] = followAddress();
  const mine = (wish = {});
  const name = Object.hasOwn(VIEWS, wanted) ? wanted : "ask";
  if (name !== current) changing = changeView(name);
  await changing;
  // The user may have gone on while the view was loading.
  return mine === wish ? shown.get(name)?.show?.(id) : undefined;
}

async function changeView(name) {
  leaveView(current);
  current = name;
  document.title = `${VIEWS[name].title} · Cappella`;
  for (const link of document.querySelectorAll(".top nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!shown.has(name)) mount(name);
  await shown.get(name).loading;
  for (const [other, view] of shown) view.root.hidden = other !== current;
}

function mount(name) {
  const root = h("div", { className: `view view-${name}` });
  const view = { root, unmount() {} };
  shown.set(name, view);
  main.append(root);
  view.loading = load(name, view);
}

async function load(name, view) {
  try {
    Object.assign(view, (await VIEWS[name].load()).mount(view.root, api));
  } catch (error) {
    view.root.append(
      h("div", { className: "note bad" }, h("strong", {}, "This view did not load."), h("p", {}, String(error))),
    );
  }
  // Left while it was loading; another one of the name may have been begun since.
  if (shown.get(name) !== view) view.unmount();
}

function leaveView(name) {
  if (name === null || VIEWS[name].stays) return;
  const view = shown.get(name);
  shown.delete(name);
  view.root.remove();
  view.unmount();
}

async function refreshEngineCount() {
  const link = document.getElementById("engines");
  try {
    const { engines, ensembles, takes_batches: takesBatches } = await api.get("/api/machine");
    document.getElementById("batches-link").hidden = !takesBatches;
    const all = Object.values(engines);
    const up = all.filter((engine) => engine.state === "ready" || engine.state === "asleep").length;
    const count = up === all.length ? `${up}` : `${up} of ${all.length}`;
    const words = h("span", {}, count, h("span", { className: "long" }, " engines ready"));
    if (link.textContent !== words.textContent) fill(link, words);
    link.className = `engines ${Object.values(ensembles).every((each) => each.answers) ? "good" : ""}`;
    link.hidden = false;
  } catch (error) {
    // A missing key has its own note; only a server that does not answer is shown here.
    link.hidden = error.status !== undefined;
    setText(link, "No server");
    link.className = "engines bad";
  }
}

function applyTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const button = document.getElementById("theme");
  setText(button, dark ? "Light" : "Dark");
  button.setAttribute("aria-label", dark ? "Light colours" : "Dark colours");
  return dark ? "light" : "dark";
}

let otherTheme = applyTheme(localStorage.getItem(THEME));
document.getElementById("theme").addEventListener("click", () => {
  const theme = otherTheme;
  otherTheme = applyTheme(theme);
  localStorage.setItem(THEME, theme);
});
document.getElementById("key").addEventListener("click", () => askForKey(api));
document.addEventListener("cappella-key", refreshEngineCount);
addEventListener("hashchange", showView);
showView();
refreshEngineCount();
setInterval(() => document.hidden || refreshEngineCount(), REFRESH_MS);
