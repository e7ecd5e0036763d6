// The Eval view: a report of `cappella eval --json`, read in the browser.

import { announce, fill, h } from "./dom.js";
import { evalReport } from "./eval_report.js";
import { readReport } from "./eval_text.js";

export function mount(root) {
  const field = h("input", { type: "file", id: "eval-file", accept: ".json,application/json" });
  const note = h("div", { className: "note bad", role: "alert", hidden: true });
  const place = h("div", { className: "eval-report" });
  const command = "cappella eval CONFIG questions.jsonl --json report.json";
  fill(
    root,
    h(
      "header",
      { className: "compare-head" },
      h("h1", {}, "Eval"),
      h(
        "p",
        { className: "lead muted" },
        "Does the ensemble help, on your own questions? Measure it with ",
        h("code", {}, command),
        ", then open the report here. It is read in this browser and sent nowhere.",
      ),
      h("div", { className: "row" }, h("label", { for: "eval-file" }, "Report"), field),
    ),
    note,
    place,
  );
  field.addEventListener("change", () => field.files[0] && open(field.files[0]));
  root.addEventListener("dragover", (event) => event.preventDefault());
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
  });
  return { unmount() {} };

  async function open(file) {
    try {
      fill(place, evalReport(readReport(await file.text())));
      note.hidden = true;
      announce(`${file.name} is open.`);
    } catch (error) {
      fill(place);
      fill(note, h("p", {}, `${file.name}: ${error.message}`));
      note.hidden = false;
    }
  }
}
