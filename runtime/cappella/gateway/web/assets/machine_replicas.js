// The servers of an engine that has several: each with its state, its calls, its buttons and its details.

import { fill, h, setText } from "./dom.js";
import { actionButtons } from "./machine_buttons.js";
import { engineDetails } from "./machine_details.js";
import { isStarting, replicaText, stateTone } from "./machine_text.js";

/** Their list; `act(name, action)` and `look(name)` are those of the table of engines. */
export function replicaList(engine, act, look) {
  const root = h("ul", { className: "machine-replicas", "aria-label": `Replicas of ${engine}` });
  const items = new Map();
  return { root, show };

  function show(replicas) {
    if ([...items.keys()].join() !== replicas.map((each) => each.name).join()) {
      items.clear();
      for (const { name } of replicas) items.set(name, replicaItem(name, act, () => look(name)));
      fill(root, [...items.values()].map((each) => each.root));
    }
    for (const each of replicas) items.get(each.name).show(each);
  }
}

function replicaItem(name, act, look) {
  const chip = h("span", { className: "machine-state" });
  const bar = h("progress", { className: "machine-progress", max: "1", "aria-label": `Start of ${name}` });
  const words = h("span", { className: "muted small" });
  const buttons = h("span", { className: "machine-do" });
  const actions = actionButtons(name, act, buttons);
  const details = engineDetails(name, look);
  const head = h("div", { className: "machine-where" }, h("span", { className: "name" }, name), chip, bar, words, details.button, buttons);
  return { root: h("li", {}, head, details.element), show };

  function show(replica) {
    setText(chip, replica.state);
    chip.className = `machine-state ${stateTone(replica.state)}`;
    bar.hidden = !isStarting(replica);
    bar.value = replica.progress;
    setText(words, replicaText(replica));
    actions.show(replica.actions);
  }
}
