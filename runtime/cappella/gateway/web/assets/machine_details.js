// What is looked up about one engine: its facts, how it failed before, and the end of its log.

import { fill, h, setText } from "./dom.js";
import { factPairs, failureText } from "./machine_text.js";

/** A button that opens the details, and their element; `look()` resolves to what the server tells. */
export function engineDetails(name, look) {
  const facts = h("dl", { className: "machine-facts small" });
  const failures = h("ol", { className: "small" });
  const inFailures = h("div", { hidden: true }, h("h3", {}, "Failures, the newest first"), failures);
  const file = h("p", { className: "small muted" });
  const log = h("pre", { className: "machine-log", tabindex: 0, role: "group", "aria-label": `End of the log of ${name}` });
  const again = h("button", { type: "button", className: "quiet", onclick: read }, "Read again");
  const inLog = h("div", { hidden: true }, h("div", { className: "row" }, h("h3", {}, "Log"), again), file, log);
  const note = h("p", { className: "small", role: "alert", hidden: true });
  const element = h("div", { className: "machine-details", hidden: true }, note, facts, inFailures, inLog);
  const button = h("button", { type: "button", className: "quiet", "aria-expanded": "false", onclick: toggle }, "Details");
  button.setAttribute("aria-label", `Details of ${name}`);
  return { button, element };

  function toggle() {
    element.hidden = !element.hidden;
    button.setAttribute("aria-expanded", String(!element.hidden));
    element.dispatchEvent(new CustomEvent("toggled", { bubbles: true }));
    if (!element.hidden) read();
  }

  async function read() {
    try {
      show(await look());
      note.hidden = true;
    } catch (error) {
      note.hidden = false;
      setText(note, error.message);
    }
  }

  function show(told) {
    fill(facts, factPairs(told.facts).map(([title, value]) => h("div", {}, h("dt", {}, title), h("dd", {}, value))));
    inFailures.hidden = !told.failures.length;
    fill(failures, told.failures.map((each) => h("li", {}, failureText(each))));
    inLog.hidden = told.log === null;
    if (told.log === null) return;
    setText(file, told.log.file);
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 8;
    setText(log, told.log.lines.join("\n") || "It is empty.");
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  }
}
