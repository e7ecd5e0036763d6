// The Batches view: the key's batches, one of them, and a form for a new one; refreshed while any is at work and the page is visible.

import { batchCard } from "./batch_card.js";
import { batchFiles } from "./batch_files.js";
import { newBatch } from "./batch_new.js";
import { oneBatch } from "./batch_one.js";
import { isOver, stateOf } from "./batch_text.js";
import { confirmDialog } from "./confirm_dialog.js";
import { announce, fill, h } from "./dom.js";
import { errorNote } from "./error_note.js";
import { describeError } from "./errors.js";

const REFRESH_MS = 3000;
const PAGE = 20;
const MAX_LISTED = 100;

export function mount(root, api) {
  const state = { id: null, limit: PAGE, timer: null, turn: null, isUnmounted: false, told: new Map() };
  const files = batchFiles(api);
  const dialog = confirmDialog();
  const note = notePlace((error) => errorNote(api, error, { model: "", again: refresh }));
  const refusal = notePlace(plainNote);
  const one = oneBatch(api, files, { confirm: dialog.ask, changed: refresh, failed: refusal.show });
  const form = newBatch(api, { failed: refusal.show, created: ({ id }) => (location.hash = `#batches/${id}`) });
  const list = batchList(() => {
    state.limit = Math.min(state.limit + PAGE, MAX_LISTED);
    refresh();
  });
  const all = h("div", { className: "batch-all" }, heading(refresh), form.root, list.root);
  fill(root, h("div", { className: "batches" }, note.root, refusal.root, all, one.root, dialog.root));
  document.addEventListener("visibilitychange", refresh);
  document.addEventListener("cappella-key", onKey);
  return { show, unmount };

  /** Show the batch of the address, or all. */
  async function show(wanted) {
    const id = wanted || null;
    const hasMoved = state.turn !== null;
    if (id !== state.id) {
      refusal.show(null);
      one.clear();
      one.root.hidden = true;
    }
    state.id = id;
    all.hidden = id !== null;
    await refresh();
    if (hasMoved && id === state.id) id === null ? all.querySelector("h1").focus() : one.focus();
  }

  async function refresh() {
    clearTimeout(state.timer);
    if (state.isUnmounted || document.hidden) return;
    const mine = (state.turn = {});
    let isAtWork = false;
    try {
      isAtWork = await (state.id === null ? readAll(mine) : readOne(mine, state.id));
      if (mine === state.turn) note.show(null);
    } catch (error) {
      // A file was deleted meanwhile: the list of files is read anew.
      const isOutdated = error.code === "file_not_found";
      if (isOutdated) files.forget();
      else if (mine === state.turn) note.show(error);
      // A server that is away may come back; one that refuses waits for the user.
      isAtWork = isOutdated || error.status === undefined;
    }
    if (isAtWork && mine === state.turn && !state.isUnmounted) state.timer = setTimeout(refresh, REFRESH_MS);
  }

  async function readAll(mine) {
    const { data, has_more: hasMore } = await api.get(`/v1/batches?limit=${state.limit}`);
    await files.look(data.map((each) => each.input_file_id));
    if (mine !== state.turn) return false;
    const show = () => list.show(data, files, hasMore && state.limit < MAX_LISTED);
    show();
    await files.learnModels(data.map((each) => each.input_file_id));
    if (mine !== state.turn) return false;
    show();
    data.forEach(tellChange);
    return !data.every(isOver);
  }

  async function readOne(mine, id) {
    const batch = await api.get(`/v1/batches/${encodeURIComponent(id)}`);
    await files.look([batch.input_file_id, batch.output_file_id, batch.error_file_id]);
    await files.learnModels([batch.input_file_id]);
    if (mine !== state.turn) return false;
    one.root.hidden = false;
    tellChange(batch);
    await one.show(batch);
    return !isOver(batch);
  }

  /** Tell screen readers when a batch that was seen here changes its state. */
  function tellChange(batch) {
    const { words } = stateOf(batch);
    const before = state.told.get(batch.id);
    state.told.set(batch.id, words);
    if (before && before !== words) announce(`${files.find(batch.input_file_id)?.filename ?? batch.id}: ${words}`);
  }

  /** What was shown to one key is not shown to another. */
  function onKey() {
    files.forget();
    form.reset();
    list.show([], files, false);
    one.clear();
    one.root.hidden = true;
    state.told.clear();
    refresh();
  }

  function unmount() {
    state.isUnmounted = true;
    clearTimeout(state.timer);
    note.show(null);
    refusal.show(null);
    document.removeEventListener("visibilitychange", refresh);
    document.removeEventListener("cappella-key", onKey);
  }
}

function heading(refresh) {
  return h(
    "header",
    { className: "batch-top" },
    h("h1", { tabindex: -1 }, "Batches"),
    h("button", { type: "button", className: "quiet", onclick: refresh }, "Refresh"),
    h("p", { className: "lead muted" }, "Many rows, answered when there is room: what is asked online goes first."),
  );
}

/** The list, the newest first; a batch that stays in it keeps its element. */
function batchList(more) {
  const items = h("ul", { className: "batch-list", "aria-label": "Batches, the newest first" });
  const none = h("p", { className: "muted", hidden: true }, "No batches yet.");
  const button = h("button", { type: "button", hidden: true, onclick: more }, "Show older ones");
  const cards = new Map();
  return { root: h("div", { className: "batch-listed" }, items, none, button), show };

  function show(batches, files, hasMore) {
    const wanted = batches.map((batch) => {
      if (!cards.has(batch.id)) cards.set(batch.id, newItem(batch.id));
      const item = cards.get(batch.id);
      item.card.show(batch, files);
      return item.element;
    });
    for (const id of cards.keys()) if (!batches.some((batch) => batch.id === id)) cards.delete(id);
    if (wanted.length !== items.children.length || wanted.some((each, at) => each !== items.children[at])) fill(items, wanted);
    none.hidden = batches.length > 0;
    button.hidden = !hasMore;
  }
}

function newItem(id) {
  const link = h("a", { href: `#batches/${id}` });
  const card = batchCard(link);
  return { card, element: h("li", {}, card.root) };
}

/** A place for what went wrong; the same error is told once. `noteOf(error)` has an `element`, and `dispose()`. */
function notePlace(noteOf) {
  const root = h("div", { role: "alert" });
  let shown = null;
  let words = "";
  return { root, show };

  function show(error) {
    const wanted = error ? `${error.status} ${error.message}` : "";
    if (wanted === words) return;
    words = wanted;
    shown?.dispose();
    shown = error && noteOf(error);
    fill(root, shown?.element);
  }
}

/** An error of what was asked for here; it can be asked for again where it was. */
function plainNote(error) {
  const { title, words, hint } = describeError(error);
  const element = h("div", { className: "note bad" }, h("strong", {}, title), h("p", {}, words), hint && h("p", {}, hint));
  return { element, dispose() {} };
}
