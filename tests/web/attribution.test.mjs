// Which member answers a sentence resembles, and what is not claimed.
import assert from "node:assert/strict";
import test from "node:test";

import { PARTLY, SAID, sentences, attribute } from "../../runtime/cappella/gateway/web/assets/attribution.js";

const cut = (text) => sentences(text).map(({ start, end }) => text.slice(start, end));
const PANEL = {
  ann: "Gonil sits in room 174. I do not know the price of Tunagox.",
  bob: "I do not know the room of Gonil. Tunagox costs 28 dollars.",
  eve: "The capital of Australia is Canberra, a planned city founded in 1913. Sydney is larger.",
};
const ANSWERS = Object.entries(PANEL).map(([name, text]) => ({ name, passages: cut(text) }));
const trace = (sentence) => attribute([sentence], ANSWERS)[0];
const names = (found) => found.sources.map((each) => each.name).sort();

test("texts are cut into sentences, and not at abbreviations or inside numbers", () => {
  assert.deepEqual(cut("Dr. Smith paid 3.5 dollars, e.g. for tea. Really? Yes!"), [
    "Dr. Smith paid 3.5 dollars, e.g. for tea.",
    "Really?",
    "Yes!",
  ]);
  assert.deepEqual(cut("One line\nanother。第三句。 "), ["One line", "another。", "第三句。"]);
  assert.deepEqual(cut("  "), []);
});

test("a sentence that a member said word for word is said by it alone, in its place", () => {
  const found = trace("Tunagox costs 28 dollars.");
  assert.deepEqual([found.kind, found.score, names(found), found.sources[0].at], ["said", 1, ["bob"], [1]]);
});

test("a small change of words is still the same source, below 1", () => {
  const found = trace("Gonil's room: he sits in room 174.");
  assert.deepEqual(names(found), ["ann"]);
  assert.ok(found.score < 1 && found.score >= PARTLY, String(found.score));
});

test("a sentence that joins what two members said names both", () => {
  const found = trace("Gonil sits in room 174 and Tunagox costs 28 dollars.");
  assert.deepEqual([found.kind, names(found)], ["joined", ["ann", "bob"]]);
  assert.ok(found.score >= SAID);
});

test("another number is another claim, however alike the words are", () => {
  const found = trace("Tunagox costs 82 dollars.");
  assert.deepEqual([found.kind, found.sources, found.missing], ["none", [], ["82"]]);
});

test("one wrong number in a long sentence is enough", () => {
  const found = trace("The capital of Australia is Canberra, a planned city founded in 1931.");
  assert.deepEqual([found.kind, found.missing], ["none", ["1931"]]);
});

test("a sentence of which only some numbers were said is never said", () => {
  const found = trace("The capital of Australia is Canberra, a planned city founded in 1913 by 111.");
  assert.equal(found.kind, "partly");
  assert.ok(found.missing.includes("111"));
});

test("thousands and their commas are one number", () => {
  const answers = [{ name: "ann", passages: ["It weighs 1,250 kilos."] }];
  assert.equal(attribute(["It weighs 1250 kilos."], answers)[0].kind, "said");
});

test("a negation is not what was said", () => {
  const found = trace("Tunagox does not cost 28 dollars.");
  assert.notEqual(found.kind, "said");
  assert.notEqual(found.kind, "joined");
  assert.ok(found.sources.every((each) => each.isNegated));
});

test("nor is one negation in a long sentence", () => {
  const found = trace("The capital of Australia is not Canberra, a planned city founded in 1913.");
  assert.deepEqual([found.kind, found.sources.map((each) => each.isNegated)], ["partly", [true]]);
});

test("not even next to a sentence that negates something else", () => {
  assert.notEqual(trace("Gonil does not sit in room 174.").kind, "said");
});

test("what no member said has no source, and its own words are named", () => {
  const found = trace("The Eiffel Tower stands in Paris.");
  assert.deepEqual([found.kind, names(found)], ["none", []]);
  assert.ok(found.missing.includes("Eiffel"));
});

test("common words alone are no similarity", () => {
  assert.equal(trace("It is what there was to be had of it for them in the end, if any.").kind, "none");
});

test("a sentence too short to tell is left alone", () => {
  assert.equal(trace("Yes.").kind, "short");
});

test("all members that say the same are named", () => {
  const both = [
    { name: "ann", passages: ["Water boils at 100 degrees."] },
    { name: "bob", passages: ["Water boils at 100 degrees."] },
  ];
  assert.deepEqual(names(attribute(["Water boils at 100 degrees."], both)[0]), ["ann", "bob"]);
});

test("a paraphrase is beyond this match, which is why the page says similar words", () => {
  assert.notEqual(trace("You find Gonil's desk behind door number one seven four.").kind, "said");
});

test("scripts without spaces are matched sign by sign", () => {
  const answers = [{ name: "ann", passages: ["澳大利亚的首都是堪培拉。"] }];
  assert.equal(attribute(["澳大利亚的首都是堪培拉。"], answers)[0].kind, "said");
  assert.equal(attribute(["法国最大的城市叫做巴黎。"], answers)[0].kind, "none");
});

test("without answers nothing has a source", () => {
  assert.equal(attribute(["Gonil sits in room 174."], [])[0].kind, "none");
});
