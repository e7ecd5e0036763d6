// The column of kept conversations: search, open, delete, and the switch that lets this browser keep nothing.

import { announce, fill, h, setText } from "./dom.js";
import * as kept from "./kept_conversations.js";

const DAY_MS = 24 * 3600 * 1000;
const NOT_KEPT = "Nothing is kept: a conversation is gone when you leave it or reload.";
const KEPT = "Kept in this browser only, and readable by whoever uses it.";

/** The column; `show(owner, currentId)` reads the list anew, `wrote(error)` tells how a write went, without an error if well. */
export function conversationList({ startNew, remove, removeAll, keepingChanged }) {
  let owner = null;
  let current = null;
  let heads = [];
  let turn = 0;
  let drawn = "";
  let writeError = null;
  const search = h("input", { type: "search", "aria-label": "Search conversations", placeholder: "Search" });
  const list = h("div", { className: "kept-list" });
  const problem = h("p", { className: "small muted", hidden: true });
  const keeping = h("input", { type: "checkbox", checked: kept.isKeeping() });
  const keepWords = h("p", { className: "small muted" });
  const dialog = deleteAllDialog();
  const all = h("button", { type: "button", className: "quiet", onclick: () => dialog.ask(heads.length, removeAll) }, "Delete all…");
  const newButton = h("button", { type: "button", className: "new", onclick: () => startNew() }, "New conversation");
  const element = h(
    "nav",
    { className: "kept", id: "conversations", popover: "auto", "aria-label": "Conversations" },
    h("div", { className: "kept-head" }, newButton, search),
    list,
    h(
      "div",
      { className: "kept-foot" },
      problem,
      h("label", {}, keeping, " Keep conversations"),
      keepWords,
      all,
    ),
    dialog.element,
  );

  const draw = async () => {
    const mine = (turn += 1);
    const words = search.value.trim();
    const found = words && (await kept.findConversations(owner, words));
    // A later search may have been faster.
    if (mine !== turn) return;
    const shown = found ? heads.filter((head) => found.has(head.id)) : heads;
    search.hidden = heads.length === 0;
    all.hidden = heads.length === 0;
    setText(keepWords, keeping.checked ? KEPT : NOT_KEPT);
    drawList(shown, words ? "None has these words." : "No conversations yet.");
    if (words) announce(`${shown.length} of ${heads.length} conversations`);
  };
  /** Draw what changed, and leave the focus where it was. */
  const drawList = (shown, nothing) => {
    const now = JSON.stringify([shown, current, nothing]);
    if (now === drawn) return;
    drawn = now;
    const focused = list.contains(document.activeElement) && document.activeElement.getAttribute("href");
    fill(list, ...groups(shown).map(([title, members]) => group(title, members, current, remove)));
    if (!shown.length) fill(list, h("p", { className: "small muted" }, nothing));
    if (focused) [...list.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
  };
  const show = async (newOwner, currentId) => {
    [owner, current] = [newOwner, currentId];
    try {
      heads = await kept.listHeads(owner);
      await draw();
      tell(writeError);
    } catch (error) {
      tell(error);
    }
  };
  const tell = (error) => {
    problem.hidden = error === null;
    setText(problem, error ? `This browser keeps no conversations now (${error.name ?? error}).` : "");
  };
  const announceProblem = (error) => {
    problem.hidden = false;
    setText(problem, `This browser does not take that choice now (${error.name}).`);
    announce(problem.textContent);
  };
  const wrote = (error) => {
    writeError = error ?? null;
    tell(writeError);
  };
  search.addEventListener("input", () => draw().catch(tell));
  keeping.addEventListener("change", () => {
    try {
      kept.setKeeping(keeping.checked);
    } catch (error) {
      // The switch never says that nothing is kept while all is.
      keeping.checked = kept.isKeeping();
      return void announceProblem(error);
    }
    keepingChanged();
    draw().catch(tell);
  });
  element.addEventListener("click", (event) => event.target.closest("a, .new, li button") && hidePopover(element));
  return { element, show, wrote };
}

/** Close the column where it lies over the page. */
function hidePopover(element) {
  if (element.matches(":popover-open")) element.hidePopover();
}

/** Heads by their age, without empty groups. */
function groups(heads) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const since = { Today: midnight, "Last 7 days": midnight - 6 * DAY_MS, Earlier: -Infinity };
  const names = Object.keys(since);
  const nameOf = ({ changedMs }) => names.find((name) => changedMs >= since[name]);
  return names.map((name) => [name, heads.filter((head) => nameOf(head) === name)]).filter(([, members]) => members.length);
}

function group(title, heads, current, remove) {
  return h(
    "section",
    { "aria-label": title },
    h("h2", { className: "eyebrow" }, title),
    h("ul", {}, ...heads.map((head) => item(head, head.id === current, remove))),
  );
}

function item(head, isCurrent, remove) {
  const title = head.title || "Without a title";
  const link = h("a", { href: `#ask/${head.id}`, title, "aria-current": isCurrent ? "page" : null }, title);
  const props = { type: "button", className: "quiet", "aria-label": `Delete “${title}”`, title: "Delete" };
  return h("li", {}, link, h("button", { ...props, onclick: () => remove(head) }, "×"));
}

function deleteAllDialog() {
  const words = h("p", {});
  const no = h("button", { value: "no", autofocus: true }, "Cancel");
  const yes = h("button", { value: "yes", className: "primary" }, "Delete all");
  const title = h("h2", { id: "delete-all-title" }, "Delete all conversations?");
  const form = h("form", { method: "dialog" }, title, words, h("div", { className: "row end" }, no, yes));
  const element = h("dialog", { "aria-labelledby": "delete-all-title" }, form);
  return {
    element,
    ask(count, removeAll) {
      setText(words, `${count} kept with this key in this browser, with their runs. This cannot be undone.`);
      element.returnValue = "no";
      element.showModal();
      element.addEventListener("close", () => element.returnValue === "yes" && removeAll(), { once: true });
    },
  };
}
