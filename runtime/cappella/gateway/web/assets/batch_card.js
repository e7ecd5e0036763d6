// One batch in a few lines: its state, its rows, and how far each model is. It is brought up to date in place.

import { countsText, isOver, leftText, phaseText, stateOf } from "./batch_text.js";
import { fill, h, setText } from "./dom.js";

/** The card: `root` to show, `show(batch, files)`. `title` is the element with the name of its file. */
export function batchCard(title) {
  const state = h("span", { className: "machine-state" });
  const bar = h("progress", { className: "batch-bar" });
  const counts = h("span", { className: "number" });
  const about = h("span", { className: "muted" });
  const phases = h("ul", { className: "batch-phases small", "aria-label": "Models at work" });
  const paused = h("p", { className: "batch-paused small" });
  const root = h(
    "article",
    { className: "batch-card" },
    h("div", { className: "batch-head" }, title, state),
    h("div", { className: "batch-rows" }, bar, counts),
    phases,
    paused,
    h("p", { className: "small" }, about),
  );
  let shownPhases = "";
  return { root, show };

  function show(batch, files) {
    const name = files.find(batch.input_file_id)?.filename ?? "A file that was deleted";
    const { words, tone } = stateOf(batch);
    const { total, completed, failed } = batch.request_counts;
    setText(title, name);
    setText(state, words);
    state.className = `machine-state ${tone}`;
    bar.max = Math.max(total, 1);
    bar.value = completed + failed;
    bar.hidden = isOver(batch);
    bar.setAttribute("aria-label", `Rows of ${name}`);
    const left = leftText(batch.progress?.remaining_s);
    setText(counts, [total && countsText(batch.request_counts), left].filter(Boolean).join(" · ") || mistakes(batch));
    setText(about, [files.modelOf(batch.input_file_id), batch.endpoint, timeText(batch.created_at)].filter(Boolean).join(" · "));
    setText(paused, batch.progress?.paused ?? "");
    // A model that was not called yet says nothing.
    showPhases((batch.progress?.phases ?? []).filter(({ done, waiting, running }) => done + waiting + running));
  }

  function showPhases(all) {
    const wanted = JSON.stringify(all);
    if (wanted === shownPhases) return;
    shownPhases = wanted;
    fill(phases, all.map((each) => h("li", {}, h("strong", { className: "name" }, each.model), " ", h("span", { className: "number" }, phaseText(each)))));
  }
}

/** A time in seconds since 1970, as the reader writes times. */
export function timeText(seconds) {
  return new Date(1000 * seconds).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

function mistakes({ errors }) {
  const count = errors?.data.length ?? 0;
  return count ? `${count === 1 ? "1 mistake" : `${count} mistakes`} in the file: no row was asked` : "no rows";
}
