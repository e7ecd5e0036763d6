// The Run view: one run as the server keeps it, at an address that can be passed on.

import { fill, h } from "./dom.js";
import { errorNote } from "./error_note.js";
import { readKeptRun } from "./kept_run_state.js";
import { restoredTurn } from "./restored_turn.js";

const NO_CONTENT = "The server keeps no questions and answers of its runs, only how they went.";

export function mount(root, api) {
  const place = h("div", { className: "kept-run" });
  root.append(h("h1", { className: "unseen" }, "Run"), place);
  let wanted = null;
  let note = null;
  const load = async () => {
    const id = wanted;
    note?.dispose();
    try {
      const reply = await api.get(`/api/runs/${encodeURIComponent(id ?? "")}`);
      if (id === wanted) showRun(place, reply);
    } catch (error) {
      if (id !== wanted) return;
      note = errorNote(api, error, { model: "", again: load });
      fill(place, note.element);
    }
  };
  return {
    show(id) {
      wanted = id;
      load();
    },
    unmount: () => note?.dispose(),
  };
}

function showRun(place, reply) {
  const { question, run } = readKeptRun(reply);
  const when = `${reply.model}, ${new Date(reply.time).toLocaleString()}, run ${reply.id}`;
  const turn = restoredTurn({ question, attachments: [], choice: {}, answer: run.answer.text, run });
  const hasContent = reply.messages !== undefined;
  fill(
    place,
    h("p", { className: "small muted" }, when),
    !hasContent && h("div", { className: "note" }, h("p", {}, NO_CONTENT)),
    turn.view.element,
  );
  turn.view.evidence.open = true;
}
