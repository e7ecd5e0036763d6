// Citations of sources in a shown text: each becomes a button that shows its passage.

import { fill, h, uniqueId } from "./dom.js";
import { joinNames } from "./format.js";

const CITATION = /\[(S\d{1,4}(?:[,;] ?S\d{1,4}){0,15})\]/g;

/** Turn what `element` cites of `sources`, outside of code and links, into buttons; `show(source)` shows a passage. */
export function linkCitations(element, sources, show) {
  const known = new Map(sources.map((source) => [source.handle, source]));
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) {
    const { data, parentElement } = walker.currentNode;
    if (data.includes("[S") && !parentElement.closest("code, pre, a, button, .math")) texts.push(walker.currentNode);
  }
  for (const text of texts) {
    const pieces = piecesOf(text.data, known);
    if (pieces.length > 1 || typeof pieces[0] !== "string") text.replaceWith(...pieces.map((piece) => toNode(piece, show)));
  }
}

/** Strings and sources, in the order of a text. */
export function piecesOf(data, known) {
  const pieces = [];
  let at = 0;
  for (const found of data.matchAll(CITATION)) {
    const sources = found[1].split(/[,;] ?/).map((handle) => known.get(handle) ?? `[${handle}]`);
    if (sources.every((each) => typeof each === "string")) continue;
    if (found.index > at) pieces.push(data.slice(at, found.index));
    pieces.push(...sources);
    at = found.index + found[0].length;
  }
  if (at < data.length) pieces.push(data.slice(at));
  return pieces;
}

function toNode(piece, show) {
  if (typeof piece === "string") return document.createTextNode(piece);
  const label = `Source ${piece.handle}: ${placeOf(piece)}`;
  const props = { type: "button", className: "cite", "aria-haspopup": "dialog", "aria-label": label, title: placeOf(piece) };
  return h("button", { ...props, onclick: () => show(piece) }, `[${piece.handle}]`);
}

/** Where a passage stands, in words. */
export function placeOf({ path, place, title }) {
  return [title, path, place].filter(Boolean).join(", ");
}

/** Who found a passage, in words. */
export function foundByText({ found_by: foundBy, documents }) {
  return `Found by ${joinNames(foundBy)} in ${documents}`;
}

/** The text of a passage, as it is written. */
export function passageView({ text, text_chars: chars }) {
  const rest = chars ? h("p", { className: "small muted" }, `The first ${text.length} of ${chars} characters.`) : null;
  return [h("blockquote", { className: "passage" }, text), rest];
}

/** A card that shows one passage at a time, over the page; Escape closes it, and the focus goes back. */
export function passageCard() {
  const id = uniqueId("passage");
  const title = h("h3", { id });
  const content = h("div", { className: "passage-scrolls", tabindex: 0, role: "group", "aria-labelledby": id });
  const close = h("button", { type: "button", className: "quiet", onclick: () => element.hidePopover() }, "Close");
  const props = { className: "passage-card", popover: "auto", role: "dialog", "aria-labelledby": id };
  const element = h("div", props, h("header", {}, title, close), content);
  return {
    element,
    show(source) {
      fill(title, `${source.handle}: ${placeOf(source)}`);
      fill(content, h("p", { className: "small muted" }, foundByText(source)), ...passageView(source));
      element.showPopover();
      close.focus();
    },
  };
}
