// The buttons of one engine or replica: what an operator may ask of it now.

import { fill, h } from "./dom.js";
import { confirmation } from "./machine_text.js";

/** Shows the buttons for `actions` in `place`, and calls `act(name, action)` for the one that is pressed. */
export function actionButtons(name, act, place) {
  let shown = "";
  return { show };

  function show(actions) {
    if (shown === actions.join()) return;
    shown = actions.join();
    const hadFocus = place.contains(document.activeElement);
    fill(place, actions.map((action) => button(action)));
    // The pressed button is gone: the keyboard focus stays in this place.
    if (hadFocus) place.querySelector("button")?.focus();
  }

  function button(action) {
    const { verb, title } = confirmation(action, name);
    const label = title.replace("?", "");
    return h("button", { type: "button", "aria-label": label, onclick: () => act(name, action) }, verb);
  }
}
