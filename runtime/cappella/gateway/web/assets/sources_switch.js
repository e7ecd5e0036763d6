// The switch for the marks of whose words an answer resembles; it is kept in this browser.

import { h } from "./dom.js";

const STORAGE_KEY = "cappella-sources";

/** A button that shows or hides the marks of all answers. */
export function sourcesSwitch() {
  const button = h("button", { type: "button", className: "quiet sources-switch", onclick: toggle }, "Whose words");
  show(button);
  return button;
}

function toggle() {
  localStorage.setItem(STORAGE_KEY, isOn() ? "off" : "on");
  for (const button of document.querySelectorAll(".sources-switch")) show(button);
}

function show(button) {
  document.documentElement.dataset.sources = isOn() ? "on" : "off";
  button.setAttribute("aria-pressed", String(isOn()));
}

function isOn() {
  return localStorage.getItem(STORAGE_KEY) !== "off";
}
