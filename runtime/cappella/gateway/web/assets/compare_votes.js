// Votes on compared answers: kept in this browser as conversations are, counted by way, and given out as questions for an evaluation.

import { announce, fill, h } from "./dom.js";
import { isKeeping, ownerOf } from "./kept_conversations.js";
import { plainTable } from "./plain_table.js";
import { saveFile } from "./save_file.js";
import { leaderboard, questionLines, VERDICTS } from "./votes.js";

const COLUMNS = ["Way", "Votes", "Better", "As good", "Worse", "Share"];

/** The vote on one comparison, `open(...)` when both have answered, and the leaderboard of all votes so far with this key. */
export function voting(key) {
  const place = `cappella-votes-${ownerOf(key)}`;
  const question = h("p", { className: "vote-question" });
  const buttons = h("div", { className: "row" });
  const element = h("section", { className: "part vote", "aria-label": "Your vote", hidden: true }, question, buttons);
  const table = plainTable("Votes by way", COLUMNS, "No votes yet.");
  const save = h("button", { type: "button", className: "quiet", onclick: saveAll }, "Save as questions for cappella eval");
  const clear = h("button", { type: "button", className: "quiet", onclick: clearAll }, "Delete all votes");
  const note = h("p", { className: "small muted" }, "Kept in this browser alone, while it keeps conversations. A tie counts half.");
  const board = h(
    "section",
    { className: "part", "aria-label": "Your votes so far", hidden: true },
    h("h2", {}, "Your votes so far"),
    table.root,
    h("div", { className: "row" }, save, clear),
    note,
  );
  let votes = read(place);
  showBoard();
  return { element, leaderboard: board, open, hide: () => (element.hidden = true) };

  /** Ask for the vote; `voted()` is called once it is given. */
  function open({ question: asked, ways, answers, voted }) {
    fill(question, "Which answer is better?");
    const choices = Object.entries(VERDICTS).map(([verdict, words]) =>
      h("button", { type: "button", onclick: () => give({ question: asked, ways, answers, verdict }, voted) }, words),
    );
    fill(buttons, choices);
    element.hidden = false;
  }

  function give(vote, voted) {
    const isKept = keep({ ...vote, time: new Date().toISOString() });
    fill(buttons);
    const told = isKept ? "Thank you: your vote is counted." : "This browser keeps no more votes: save them and delete them first.";
    fill(question, told);
    announce(told);
    voted();
    showBoard();
  }

  function keep(vote) {
    if (!isKeeping()) {
      votes = [...votes, vote];
      return true;
    }
    // Another tab may have added some.
    const all = [...read(place), vote];
    try {
      localStorage.setItem(place, JSON.stringify(all));
    } catch {
      return false;
    }
    votes = all;
    return true;
  }

  function showBoard() {
    board.hidden = votes.length === 0;
    table.show(leaderboard(votes));
  }

  function saveAll() {
    saveFile("cappella-votes.jsonl", questionLines(votes), "application/jsonl");
  }

  function clearAll() {
    if (clear.dataset.sure === undefined) {
      clear.dataset.sure = "";
      clear.textContent = "Delete all of them?";
      return;
    }
    delete clear.dataset.sure;
    clear.textContent = "Delete all votes";
    localStorage.removeItem(place);
    votes = [];
    element.hidden = true;
    showBoard();
    announce("All votes are deleted.");
  }
}

function read(place) {
  try {
    const kept = JSON.parse(localStorage.getItem(place) ?? "[]");
    return Array.isArray(kept) ? kept : [];
  } catch {
    return [];
  }
}
